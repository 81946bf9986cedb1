//! WAL files out of the archive: the one that is asked for, and those that will be.

mod ahead;

use std::io::Write;
use std::path::Path;

pub use ahead::{Keeping, Shelf};

use crate::archive::{Archive, Catalog, ObjectKind, Taker, WalLook};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files::NewFile;
use crate::wal::WalName;

const LARGEST_SEGMENT: u64 = 1 << 30;
/// History files and backup history files are a few lines.
const TEXT_MAX: u64 = 1 << 20;

/// Fetches `name` to `dest` and gives its length. `dest` appears only once every byte was proven: the object is
/// the one that was stored under this name, undamaged, of this cluster, and it is what its name says. One request in
/// the common case. `Absent` is proven: the archive was reached before, and it knows the cluster.
pub async fn fetch(catalog: &Catalog, name: &WalName, dest: &Path) -> Result<u64> {
    let key = catalog.place.wal(name);
    let limit = match name {
        WalName::Segment(_) | WalName::Partial(_) => LARGEST_SEGMENT,
        WalName::History(_) | WalName::Backup { .. } => TEXT_MAX,
    };
    let system = catalog.place.system().ok_or_else(|| Error::bug("WAL was asked of a place without it"))?;
    // Each mirror that is tried begins a file of its own.
    let land = |copy: Archive| {
        let (key, name, system) = (key.as_str(), *name, system);
        async move {
            let dest = dest.to_owned();
            let file = blocking(move || NewFile::create(&dest, 0o600)).await?;
            let landing = Landing { file, look: WalLook::default() };
            let (landing, _) = copy.read(key, ObjectKind::Wal, limit, landing).await?;
            landing.look.prove(&name, system).map_err(|error| error.on(key))?;
            Ok(landing)
        }
    };
    let landing = match catalog.archive.from_any(land).await {
        Ok(landing) => landing,
        Err(error) if error.kind() == Kind::Absent => {
            catalog.prove_known().await.map_err(|error| error.during(format!("fetching {name}")))?;
            return Err(Error::new(Kind::Absent, format!("{name} is not in the archive")).on(&key));
        }
        Err(error) => return Err(error.during(format!("fetching {name}"))),
    };
    blocking(move || {
        let len = landing.look.seen();
        landing.file.publish()?;
        Ok(len)
    })
    .await
}

/// The file that is being written, and its beginning.
struct Landing {
    file: NewFile,
    look: WalLook,
}

impl Taker for Landing {
    fn take(&mut self, plain: &[u8]) -> Result<()> {
        self.look.take(plain);
        self.file.write_all(plain).map_err(|error| Error::io("cannot write the fetched file", error))
    }
}
