//! The harness of the tests that use real parts: PostgreSQL, the product's binaries, `age`, `strace`.
//!
//! ```no_run
//! use walarchive_tests::{Cluster, Product, Scratch};
//!
//! let scratch = Scratch::new();
//! let Some(mut cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
//! let product = Product::new(&scratch);
//! cluster.archive_with(&product);
//! cluster.psql("create table t as select generate_series(1, 1000) as n");
//! let segment = cluster.archive_now();
//! assert_eq!(product.run(&["wal", "show", &segment]).code, Some(0));
//! ```
//!
//! Servers refuse to run as root, and permissions do not bind root. So when the tests run as root, everything
//! real runs as an unprivileged user; see [`Scratch::command`].

#![warn(missing_docs)]

mod background;
mod cluster;
pub mod conformance;
pub mod filled;
mod kill;
mod ports;
mod product;
mod programs;
pub mod proxy;
mod restored;
pub mod sample;
mod scratch;
mod sizes;
mod sshd;
pub mod stores;
pub mod trace;

pub use background::Background;
pub use cluster::{Builder, Cluster, StopMode};
pub use kill::{Moments, kill_tree, kills, tree_of};
pub use ports::Port;
pub use product::{Options, Output, Product, example, library, outside};
pub use programs::{
    find, postgres_bin, postgres_major, python, python_packages, reachable, require, target_dir,
};
pub use restored::verify_backup;
pub use scratch::{Scratch, User};
pub use sizes::{bytes_below, bytes_below_but};
pub use sshd::Sshd;

use std::time::{Duration, Instant};

/// Asks `done` every few milliseconds until it says yes; panics with `what` when `timeout` has passed.
pub fn wait_until(what: &str, timeout: Duration, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < timeout, "waited {timeout:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
