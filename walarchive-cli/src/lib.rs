//! What the three programs share: command lines in, calls of the library, results out.

mod args;
mod backup;
mod bench;
mod catch_up;
mod check;
mod copy;
mod demo;
mod drill;
mod dump;
mod exit;
mod fetch;
mod init;
mod interrupt;
mod key;
mod output;
mod progress;
mod prune;
mod restore;
mod restore_latest;
mod run;
mod scratch;
mod status;
mod verify;
mod wal;

pub use run::{fetch_main, main, push_main};
