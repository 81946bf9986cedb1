//! Backs a server up, and restores it into a directory:
//!
//! ```sh
//! cargo run --example backup_and_restore -- file:///srv/archive identity.key "host=/run/postgresql" /tmp/restored
//! ```
//!
//! The archive is one that the server's `archive_command` pushes to, and the identity opens it.
#![allow(clippy::print_stdout)] // A program prints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use walarchive_core::archive::Keys;
use walarchive_core::cipher::age::read_identity_file;
use walarchive_core::postgres::conninfo::ConnInfo;
use walarchive_core::progress::Progress;
use walarchive_core::storage::{self, StoreOptions};
use walarchive_core::{Archive, Error, Result};

/// Counts, and prints what people should know.
#[derive(Default)]
struct Counting(AtomicU64);

impl Progress for Counting {
    fn begin(&self, what: &str, total: u64) {
        println!("{what}: {total} bytes");
    }

    fn advance(&self, bytes: u64) -> Result<()> {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn note(&self, message: &str) {
        println!("{message}");
    }

    fn end(&self) {
        println!("{} bytes are done in all", self.0.load(Ordering::Relaxed));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, identity, connection, target] = args.as_slice() else {
        return Err(Error::usage(
            "four arguments are needed: ARCHIVE_URL IDENTITY_FILE CONNECTION TARGET_DIR",
        ));
    };
    let mut identities = read_identity_file(identity.as_ref())?;
    let identity = identities.pop().ok_or_else(|| Error::usage("the file holds no identity"))?;
    let store = storage::open(url, &StoreOptions::default()).await?;
    let archive = Archive::open(store, Keys::of(identity)).await?;
    let cluster = archive.cluster("main".parse()?).progress(Arc::new(Counting::default()));
    let cluster = cluster.connection(ConnInfo::new(Some(connection.clone())));

    let made = cluster.backup().label("by", "example").run().await?;
    println!("backup {} is stored", made.backup.id);

    let verified = cluster.verify().deep().only(made.backup.id.clone()).run().await?;
    println!("{} bytes hold: {}", verified.bytes, verified.ok());

    let restore = cluster.restore(target, "walarchive-fetch %f %p").await?.from_backup(made.backup.id);
    let restored = restore.run().await?;
    println!("{} bytes were written; recovery goes to {}", restored.bytes_written, restored.plan.to);
    Ok(())
}
