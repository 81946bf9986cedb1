//! One WAL file out of the archive.

use std::io::Write;
use std::path::Path;

use crate::archive::{Archive, Catalog, ObjectKind, Taker};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files::NewFile;
use crate::wal::{LongHeader, SegmentName, TimelineHistory, WalName, check_segment};

const LARGEST_SEGMENT: u64 = 1 << 30;
const FIRST_PAGE: usize = 8192;
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
    // Each mirror that is tried begins a file of its own.
    let land = |copy: Archive| {
        let (key, name, system) = (key.as_str(), *name, catalog.place.system.0);
        async move {
            let dest = dest.to_owned();
            let file = blocking(move || NewFile::create(&dest, 0o600)).await?;
            let landing = Landing { file, len: 0, start: Vec::new() };
            let (landing, _) = copy.read(key, ObjectKind::Wal, limit, landing).await?;
            landing.prove(&name, system).map_err(|error| error.on(key))?;
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
        let len = landing.len;
        landing.file.publish()?;
        Ok(len)
    })
    .await
}

/// The file that is being written, and its beginning.
struct Landing {
    file: NewFile,
    len: u64,
    start: Vec<u8>,
}

impl Taker for Landing {
    fn take(&mut self, plain: &[u8]) -> Result<()> {
        let wanted = (TEXT_MAX as usize).saturating_sub(self.start.len());
        self.start.extend_from_slice(&plain[..wanted.min(plain.len())]);
        self.len += plain.len() as u64;
        self.file.write_all(plain).map_err(|error| Error::io("cannot write the fetched file", error))
    }
}

impl Landing {
    fn prove(&self, name: &WalName, system: u64) -> Result<()> {
        match name {
            WalName::Segment(segment) | WalName::Partial(segment) => {
                prove_segment(segment, &self.start, self.len, system)
            }
            WalName::History(timeline) => {
                let parsed = TimelineHistory::parse(*timeline, &self.start);
                parsed
                    .map(drop)
                    .map_err(|error| Error::damaged("it is not a timeline history").because(error))
            }
            WalName::Backup { .. } => Ok(()),
        }
    }
}

fn prove_segment(segment: &SegmentName, start: &[u8], len: u64, system: u64) -> Result<()> {
    let page = start.get(..FIRST_PAGE.min(start.len())).unwrap_or_default();
    let header: LongHeader = check_segment(segment, page, len)
        .map_err(|error| Error::damaged("the stored segment is not what its name says").because(error))?;
    if header.system_id != system {
        return Err(Error::damaged(format!(
            "the stored segment belongs to the cluster with system identifier {}, not {system}",
            header.system_id
        )));
    }
    Ok(())
}
