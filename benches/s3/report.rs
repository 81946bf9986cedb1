//! Medians over the batches, and ratios.

use std::time::Duration;

use walarchive_benches::{AtOnce, Report, SEGMENT, Table, Used, Who, median};

/// What is done with the segments.
pub const PUSH: &str = "push";
pub const FETCH: &str = "fetch";

pub const AWS_PUSH: &str = "aws s3 cp FILE s3://…";
pub const AWS_PUSH_ALL: &str = "aws s3 cp --recursive, up";
pub const AWS_FETCH: &str = "aws s3 cp s3://… FILE";
pub const AWS_FETCH_ALL: &str = "aws s3 cp --recursive, down";

/// What one segment took in one batch.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    pub wall: Duration,
    /// Of the client, not of the server.
    pub cpu: Duration,
    /// The largest resident set of all processes, in bytes.
    pub rss: u64,
}

impl Unit {
    pub fn of(all: &AtOnce, segments: usize) -> Unit {
        let share = |time: Duration| time.div_f64(segments as f64);
        Unit {
            wall: share(all.wall),
            cpu: share(all.used.iter().map(|used| used.cpu).sum()),
            rss: all.used.iter().map(|used| used.rss).max().unwrap_or_default(),
        }
    }

    fn middle(of: &[Unit]) -> Unit {
        Unit {
            wall: median(of.iter().map(|unit| unit.wall).collect()),
            cpu: median(of.iter().map(|unit| unit.cpu).collect()),
            rss: of.iter().map(|unit| unit.rss).max().unwrap_or_default(),
        }
    }
}

/// What everybody took for one phase.
#[derive(Debug, Default)]
struct Phase {
    name: &'static str,
    /// In the order of the first batch.
    rows: Vec<(Who, String, Vec<Unit>)>,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Batches {
    pub took_part: String,
    in_memory: Vec<(String, Vec<Unit>)>,
    phases: Vec<Phase>,
    requests: Vec<String>,
    stored: u64,
    segments: usize,
}

impl Batches {
    pub fn add(&mut self, phase: &'static str, who: Who, name: &str, unit: Unit) {
        let at = self.phases.iter().position(|known| known.name == phase).unwrap_or_else(|| {
            self.phases.push(Phase { name: phase, rows: Vec::new() });
            self.phases.len() - 1
        });
        let rows = &mut self.phases[at].rows;
        match rows.iter_mut().find(|row| row.1 == name) {
            Some(row) => row.2.push(unit),
            None => rows.push((who, name.to_owned(), vec![unit])),
        }
    }

    pub fn add_in_memory(&mut self, name: &str, unit: Unit) {
        match self.in_memory.iter_mut().find(|(known, _)| known == name) {
            Some((_, units)) => units.push(unit),
            None => self.in_memory.push((name.to_owned(), vec![unit])),
        }
    }

    /// Bytes that some segments are when they are compressed.
    pub fn stored(&mut self, bytes: u64, segments: usize) {
        self.stored += bytes;
        self.segments += segments;
    }

    /// The methods of the requests that one segment took.
    pub fn requests(&mut self, name: &str, methods: &[String]) {
        self.requests.push(format!(
            "requests for one segment, {name}: {}, {}",
            methods.len(),
            methods.join(", ")
        ));
    }

    pub fn tell(&self, mut report: Report, kind: &str, segments: usize) {
        report.fact(self.took_part.as_str());
        let mean = self.stored as f64 / self.segments as f64 / f64::from(1 << 20);
        report.fact(format!("{kind} WAL, {segments} segments of 16 MiB ({mean:.1} MiB with zstd:1)"));
        let codec = self.in_memory.first().map_or(0.0, |(_, units)| Unit::middle(units).cpu.as_secs_f64());
        let mut table = Table::new("in memory: a segment, medians of batches", "the codec alone");
        for (name, units) in &self.in_memory {
            let who = if name == "the codec alone" { Who::Floor } else { Who::Ours };
            table.row(who, name.as_str(), Unit::middle(units).into(), None);
        }
        report.add(table);
        for phase in &self.phases {
            report.add(phase.table(codec));
        }
        self.requests.iter().for_each(|line| report.fact(line.as_str()));
        report.finish();
    }
}

impl Phase {
    fn table(&self, codec: f64) -> Table {
        let (one, all) =
            if self.name == PUSH { (AWS_PUSH, AWS_PUSH_ALL) } else { (AWS_FETCH, AWS_FETCH_ALL) };
        let all = self.rows.iter().find(|row| row.1 == all);
        let all = all.map(|row| Unit::middle(&row.2).wall.as_secs_f64());
        let mut table = Table::new(format!("{}: a segment in S3, medians of batches", self.name), one);
        for (who, name, units) in &self.rows {
            let unit = Unit::middle(units);
            let (wall, cpu) = (unit.wall.as_secs_f64(), unit.cpu.as_secs_f64());
            let mut note = format!(
                "{:.1} /s, {:.0} MB/s, {:.2} x CPU of the codec",
                1.0 / wall,
                SEGMENT as f64 / wall / 1e6,
                cpu / codec
            );
            if let Some(all) = all {
                note += &format!(", {:.2} x wall of --recursive", wall / all);
            }
            table.noted(*who, name.as_str(), unit.into(), None, note);
        }
        table
    }
}

impl From<Unit> for Used {
    fn from(unit: Unit) -> Used {
        Used { wall: unit.wall, cpu: unit.cpu, rss: unit.rss }
    }
}
