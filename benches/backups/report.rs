//! Medians over the rounds, step by step.

use walarchive_benches::{Report, Table, Used, Who};

use crate::contenders::{FLOOR, IN_DIRECTORY, IN_S3};

/// What everybody took for one step.
#[derive(Default)]
struct Step {
    name: String,
    /// In the order of the first round.
    rows: Vec<(&'static str, Who, Vec<Used>, Vec<u64>)>,
    /// Bytes that an increment cannot be smaller than.
    ideal: Vec<u64>,
}

/// Everything that was measured, in the order of the first round.
#[derive(Default)]
pub struct Steps(Vec<Step>);

impl Steps {
    pub fn add(&mut self, step: &str, (name, who): (&'static str, Who), used: Used, stored: u64) {
        let rows = &mut self.step(step).rows;
        match rows.iter_mut().find(|row| row.0 == name) {
            Some(row) => {
                row.2.push(used);
                row.3.push(stored);
            }
            None => rows.push((name, who, vec![used], vec![stored])),
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

    pub fn tell(&self, report: &mut Report) {
        for step in &self.0 {
            report.add(step.table());
            step.tell_s3(report);
        }
    }
}

impl Step {
    /// In units of the floor; where it takes no part, of this product.
    fn table(&self) -> Table {
        let unit = if self.rows.iter().any(|row| row.0 == FLOOR) { FLOOR } else { IN_DIRECTORY };
        let mut title = format!("{}, medians", self.name);
        let ideal = middle(&self.ideal);
        if ideal > 0 {
            title +=
                &format!("; stored in units of the changed pages in zstd -1, {:.2} MB", ideal as f64 / 1e6);
        }
        let mut table = Table::new(title, unit);
        if ideal > 0 {
            table.stored_in_units_of(ideal);
        }
        for (name, who, used, stored) in &self.rows {
            let stored = Some(middle(stored)).filter(|bytes| *bytes > 0);
            table.row(*who, *name, Used::middle(used), stored);
        }
        table
    }

    /// What S3 costs beside a directory.
    fn tell_s3(&self, report: &mut Report) {
        let of = |name| self.rows.iter().find(|row| row.0 == name).map(|row| Used::middle(&row.2));
        if let (Some(s3), Some(directory)) = (of(IN_S3), of(IN_DIRECTORY)) {
            let wall = s3.wall.as_secs_f64() / directory.wall.as_secs_f64().max(1e-9);
            let cpu = s3.cpu.as_secs_f64() / directory.cpu.as_secs_f64().max(1e-9);
            report
                .fact(format!("{}: S3, in units of the directory: {wall:.2} wall, {cpu:.2} CPU", self.name));
        }
    }
}

fn middle(of: &[u64]) -> u64 {
    let mut sorted = of.to_owned();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
