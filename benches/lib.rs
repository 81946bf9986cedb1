//! What the benches share: real data, and measuring by turns.

#![warn(missing_docs)]

mod batch;
pub mod contenders;
mod cpu_time;
mod data;
pub mod made_up;
mod relay;
mod report;
mod sealing;
mod synthetic;
mod turns;
mod used;

pub use batch::{Batch, check_fetched, claim, control_system_id, file_name, system_id};
pub use cpu_time::CpuTime;
pub use data::{Data, MIXED, SEGMENT, samples};
pub use relay::Relay;
pub use report::{Report, Table, Who};
pub use sealing::{compress, digest, open, seal};
pub use turns::{Case, Row, median, smoke, thread_time, turns};
pub use used::{AtOnce, Used, at_once};
