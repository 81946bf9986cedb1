//! Stores a WAL segment in an archive in a directory, and fetches it back.

use walarchive_core::archive::Keys;
use walarchive_core::cipher::age::Identity;
use walarchive_core::source::WalFile;
use walarchive_core::storage::{self, StoreOptions};
use walarchive_core::{Archive, Blocking, Error, Result};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, segment, copy] = args.as_slice() else { return Err(Error::usage("ARCHIVE_URL SEGMENT COPY")) };
    Blocking::new()?.wait(async {
        let store = storage::create(url, &StoreOptions::default()).await?;
        Archive::init(&*store, true).await?;
        let archive = Archive::open(store, Keys::of(Identity::generate()?)).await?;
        let cluster = archive.cluster("main".parse()?);
        cluster.push(segment).await?;
        cluster.fetch(&WalFile::at(segment.as_ref())?.name, copy).await
    })?;
    Ok(())
}
