//! What the benches share: real data, and measuring by turns.

#![warn(missing_docs)]

mod cpu_time;
mod data;
mod synthetic;
mod turns;
mod used;

pub use cpu_time::CpuTime;
pub use data::{Data, SEGMENT, samples};
pub use turns::{Case, Row, median, smoke, turns};
pub use used::Used;
