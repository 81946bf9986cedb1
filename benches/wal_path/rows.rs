//! What cases took in each round, and the table of their medians.

use std::time::Duration;

use walarchive_benches::{Table, Used, Who, median};

/// What a case took in a round.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// For all segments.
    pub used: Used,
    /// Each call, where there are calls.
    pub calls: Vec<Duration>,
    /// Besides, how long it took until the last segment was there, once the load was over.
    pub behind: Option<Duration>,
}

impl From<Used> for Taken {
    fn from(used: Used) -> Taken {
        Taken { used, ..Taken::default() }
    }
}

#[derive(Debug, Default)]
pub struct Rows(Vec<(Who, String, Vec<Taken>)>);

impl Rows {
    pub fn add(&mut self, who: Who, name: &str, taken: Taken) {
        match self.0.iter_mut().find(|row| row.1 == name) {
            Some(row) => row.2.push(taken),
            None => self.0.push((who, name.to_owned(), vec![taken])),
        }
    }

    /// Medians of rounds, for one of so many segments.
    pub fn table(&self, title: String, unit: &str, segments: usize) -> Table {
        let mut table = Table::new(format!("{title}, for one segment"), unit);
        let share = |time: Duration| time.div_f64(segments as f64);
        for (who, name, taken) in &self.0 {
            let used = Used::middle(&taken.iter().map(|taken| taken.used).collect::<Vec<_>>());
            let each = Used { wall: share(used.wall), cpu: share(used.cpu), ..used };
            table.noted(*who, name.as_str(), each, None, note(taken, each.wall));
        }
        table
    }
}

fn note(taken: &[Taken], each: Duration) -> String {
    let mut note = format!("{:.1} /s", 1.0 / each.as_secs_f64());
    note += &tenths(&taken[0].calls);
    let mut calls: Vec<Duration> = taken.iter().flat_map(|taken| taken.calls.iter().copied()).collect();
    calls.sort_unstable();
    if let Some(most) = calls.last() {
        let at = |share: usize| ms(calls[(calls.len() - 1) * share / 100]);
        note += &format!(", a call: p50 {:.1}, p99 {:.1}, max {:.1} ms", at(50), at(99), ms(*most));
    }
    let behind: Vec<Duration> = taken.iter().filter_map(|taken| taken.behind).collect();
    if !behind.is_empty() {
        note += &format!(", the last {:.1} s after the load", median(behind).as_secs_f64());
    }
    note
}

/// What the first and the last tenth of the calls took.
fn tenths(calls: &[Duration]) -> String {
    let tenth = calls.len() / 10;
    let mean = |calls: &[Duration]| ms(calls.iter().sum::<Duration>().div_f64(tenth as f64));
    match tenth {
        0 => String::new(),
        _ => format!(", tenths {:.1} … {:.1} ms", mean(&calls[..tenth]), mean(&calls[calls.len() - tenth..])),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
