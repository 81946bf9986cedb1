//! Real stores for the tests: S3 on SeaweedFS and on moto, Azure on azurite, and a small Google look-alike of ours.
//!
//! ```no_run
//! use walarchive_tests::{Options, Product, Scratch, stores};
//!
//! let scratch = Scratch::new();
//! let Some(bucket) = stores::seaweed(&scratch) else { return };
//! let mut product = Product::with(&scratch, Options { init: false, archive: Some(bucket.url()), ..Options::default() });
//! bucket.env().iter().for_each(|(name, value)| product.set(name, value));
//! product.ok(&["init"]);
//! assert!(!bucket.raw().list().is_empty());
//! ```
//!
//! Tests of one process share one server of each kind, each with a bucket of its own, as long as one of them has a
//! [`Bucket`]. A test that stops or freezes its server takes [`alone`].

mod azurite;
mod bucket;
mod gcs;
mod moto;
mod programs;
mod raw;
mod seaweed;
mod server;
mod wire;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use bucket::Bucket;
pub use raw::{Raw, Unfinished};
pub use server::Server;

use crate::Scratch;
use server::Control;

/// The stores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// S3 on SeaweedFS: a real distributed store, which checks signatures.
    Seaweed,
    /// S3 on moto: in memory, forgets all when it is stopped, believes every signature.
    Moto,
    /// Azure Blob on azurite.
    Azurite,
    /// Google Cloud Storage on a look-alike within the test's process.
    Gcs,
}

/// A bucket on SeaweedFS; `None`, after a loud note, when it is not installed.
pub fn seaweed(scratch: &Scratch) -> Option<Bucket> {
    shared(scratch, Kind::Seaweed)
}

/// A bucket on moto; `None`, after a loud note, when it is not installed.
pub fn moto(scratch: &Scratch) -> Option<Bucket> {
    shared(scratch, Kind::Moto)
}

/// A container on azurite; `None`, after a loud note, when it is not installed.
pub fn azurite(scratch: &Scratch) -> Option<Bucket> {
    shared(scratch, Kind::Azurite)
}

/// A bucket on the Google look-alike.
pub fn gcs(scratch: &Scratch) -> Option<Bucket> {
    shared(scratch, Kind::Gcs)
}

/// A new bucket on a server that other tests use too: see [`alone`].
pub fn shared(scratch: &Scratch, kind: Kind) -> Option<Bucket> {
    static SERVERS: [Mutex<Option<Weak<dyn Control>>>; 4] = [const { Mutex::new(None) }; 4];
    let mut known = SERVERS[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
    let server = known.as_ref().and_then(Weak::upgrade).or_else(|| {
        let server = start(kind)?;
        *known = Some(Arc::downgrade(&server));
        Some(server)
    })?;
    Some(Bucket::make(scratch, kind, Server(server)))
}

/// A new bucket on a server of its own, which may be stopped, frozen and started again.
pub fn alone(scratch: &Scratch, kind: Kind) -> Option<Bucket> {
    Some(Bucket::make(scratch, kind, Server(start(kind)?)))
}

fn start(kind: Kind) -> Option<Arc<dyn Control>> {
    let server: Arc<dyn Control> = match kind {
        Kind::Seaweed => Arc::new(seaweed::server()?),
        Kind::Moto => Arc::new(moto::server()?),
        Kind::Azurite => Arc::new(azurite::server()?),
        Kind::Gcs => Arc::new(gcs::Shim::new()),
    };
    server.start();
    Some(server)
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
