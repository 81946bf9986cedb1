//! Stores a WAL segment in an archive of its own, and fetches it back:
//!
//! ```sh
//! cargo run --example push_and_fetch -- file:///tmp/archive pg_wal/000000010000000000000001 /tmp/copy
//! ```
#![allow(clippy::print_stdout)] // A program prints.

use std::path::Path;

use walarchive_core::archive::Keys;
use walarchive_core::cipher::age::Identity;
use walarchive_core::storage::{self, StoreOptions};
use walarchive_core::wal::WalName;
use walarchive_core::{Archive, Error, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, segment, copy] = args.as_slice() else {
        return Err(Error::usage("three arguments are needed: ARCHIVE_URL SEGMENT COPY"));
    };
    let name: WalName = Path::new(segment).file_name().unwrap_or_default().to_string_lossy().parse()?;

    // A writer would have the recipient alone; this program reads, too.
    let identity = Identity::generate()?;
    let store = storage::create(url, &StoreOptions::default()).await?;
    Archive::init(&*store, true).await?;
    let cluster = Archive::open(store, Keys::of(identity)).await?.cluster("main".parse()?);

    let pushed = cluster.push(segment).await?;
    let (plain, stored) = (pushed.stored.plain, pushed.stored.stored);
    println!("{name}: {plain} bytes of cluster {}, stored in {stored} as {}", pushed.system, pushed.key);
    let fetched = cluster.fetch(&name, copy).await?;
    println!("{fetched} bytes came back, each of them proven");
    Ok(())
}
