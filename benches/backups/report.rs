//! Medians over the rounds, and ratios to the floor of each step.

use std::time::Duration;

use walarchive_benches::Used;

use crate::contenders::{IN_DIRECTORY, IN_S3};

/// What everybody took for one step.
#[derive(Default)]
struct Step {
    name: String,
    /// In the order of the first round.
    rows: Vec<(&'static str, Vec<Used>, Vec<u64>)>,
    /// Bytes that an increment cannot be smaller than.
    ideal: Vec<u64>,
}

/// Everything that was measured, in the order of the first round.
#[derive(Default)]
pub struct Report(Vec<Step>);

impl Report {
    pub fn add(&mut self, step: &str, name: &'static str, used: Used, stored: u64) {
        let rows = &mut self.step(step).rows;
        match rows.iter_mut().find(|row| row.0 == name) {
            Some(row) => {
                row.1.push(used);
                row.2.push(stored);
            }
            None => rows.push((name, vec![used], vec![stored])),
        }
    }

    pub fn add_ideal(&mut self, step: &str, bytes: u64) {
        self.step(step).ideal.push(bytes);
    }

    fn step(&mut self, name: &str) -> &mut Step {
        let known = self.0.iter().position(|step| step.name == name);
        let at = known.unwrap_or_else(|| {
            self.0.push(Step { name: name.to_owned(), ..Step::default() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    pub fn print(&self) {
        self.0.iter().for_each(Step::print);
    }
}

impl Step {
    fn print(&self) {
        println!(
            "\n{}, medians; memory: the most of one process; in brackets, in units of the first line (and of the changed pages)",
            self.name
        );
        let ideal = middle(&self.ideal);
        if ideal > 0 {
            println!("  the changed pages in zstd -1: {}", mb(ideal));
        }
        let mut first: Option<(Used, u64)> = None;
        for (name, used, stored) in &self.rows {
            let (used, stored) = (Used::middle(used), middle(stored));
            let (floor, floor_stored) = *first.get_or_insert((used, if ideal > 0 { ideal } else { stored }));
            let (wall, cpu) = (times(used.wall, floor.wall), times(used.cpu, floor.cpu));
            let room = match stored {
                0 => String::new(),
                stored => format!(", {} ({:.2})", mb(stored), stored as f64 / floor_stored.max(1) as f64),
            };
            println!("{} ({wall:.2} wall, {cpu:.2} CPU){room}", used.line(name));
        }
        self.print_s3();
    }

    /// What S3 costs beside a directory.
    fn print_s3(&self) {
        let of = |name| self.rows.iter().find(|row| row.0 == name).map(|row| Used::middle(&row.1));
        if let (Some(s3), Some(directory)) = (of(IN_S3), of(IN_DIRECTORY)) {
            let (wall, cpu) = (times(s3.wall, directory.wall), times(s3.cpu, directory.cpu));
            println!("  S3, in units of the directory: {wall:.2} wall, {cpu:.2} CPU");
        }
    }
}

fn times(one: Duration, of: Duration) -> f64 {
    one.as_secs_f64() / of.as_secs_f64().max(1e-9)
}

fn middle(of: &[u64]) -> u64 {
    let mut sorted = of.to_owned();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn mb(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}
