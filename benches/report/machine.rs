//! What a figure depends on besides the programs.

use std::fs;
use std::thread;

use serde_json::{Value, json};

/// Processor, cores, and how busy they were with other work when the bench began.
pub fn facts() -> Value {
    let first = |file: &str, key: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "cpu": first("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        "cores": thread::available_parallelism().map_or(1, usize::from),
        "load": load.split(' ').next().unwrap_or_default(),
        "optimised": !cfg!(debug_assertions),
    })
}

/// The time in UTC, to the second.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
