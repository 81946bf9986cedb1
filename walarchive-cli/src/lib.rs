//! What the three programs share: command lines in, calls of the library, results out.

mod args;
mod backup;
mod catch_up;
mod check;
mod demo;
mod exit;
mod init;
mod output;
mod progress;
mod prune;
mod restore;
mod run;
mod status;
mod wal;

pub use run::{fetch_main, main, push_main};
