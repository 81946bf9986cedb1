//! Medians over the batches, and ratios.

use std::time::Duration;

use walarchive_benches::{AtOnce, SEGMENT, median};

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

/// Everything that was measured, in the order of the first batch.
#[derive(Debug, Default)]
pub struct Report {
    in_memory: Vec<(String, Vec<Unit>)>,
    cases: Vec<(String, Vec<Unit>)>,
    requests: Vec<String>,
    stored: u64,
    segments: usize,
}

impl Report {
    pub fn add(&mut self, name: &str, unit: Unit) {
        put(&mut self.cases, name, unit);
    }

    pub fn add_in_memory(&mut self, name: &str, unit: Unit) {
        put(&mut self.in_memory, name, unit);
    }

    /// Bytes that some segments are when they are compressed.
    pub fn stored(&mut self, bytes: u64, segments: usize) {
        self.stored += bytes;
        self.segments += segments;
    }

    /// The methods of the requests that one segment took.
    pub fn requests(&mut self, name: &str, methods: &[String]) {
        self.requests.push(format!("  {name:32} {:2}: {}", methods.len(), methods.join(", ")));
    }

    pub fn print(&self, kind: &str, segments: usize) {
        let mean = self.stored as f64 / self.segments as f64 / f64::from(1 << 20);
        println!(
            "\ns3: {kind} WAL, {segments} segments of 16 MiB ({mean:.1} MiB with zstd:1), medians of batches, for a segment"
        );
        let codec = self.of("the codec alone").map_or(0.0, |unit| unit.cpu.as_secs_f64());
        for (name, units) in &self.in_memory {
            let cpu = Unit::middle(units).cpu.as_secs_f64();
            println!("  {name:43} {:31.1} ms CPU {:16.2} x codec", cpu * 1e3, cpu / codec);
        }
        for (name, units) in &self.cases {
            let unit = Unit::middle(units);
            let (one, all) = if name.contains("push") || name == AWS_PUSH || name == AWS_PUSH_ALL {
                (AWS_PUSH, AWS_PUSH_ALL)
            } else {
                (AWS_FETCH, AWS_FETCH_ALL)
            };
            let (wall, cpu) = (unit.wall.as_secs_f64(), unit.cpu.as_secs_f64());
            println!(
                "  {name:43} {:6.1} /s {:6.0} MB/s {:7.1} ms {:7.1} ms CPU {:5.0} MiB {:5.2} x codec {} x aws {} x aws --recursive",
                1.0 / wall,
                SEGMENT as f64 / wall / 1e6,
                wall * 1e3,
                cpu * 1e3,
                unit.rss as f64 / f64::from(1 << 20),
                cpu / codec,
                self.ratio(wall, one),
                self.ratio(wall, all),
            );
        }
        println!("  requests for one segment:");
        self.requests.iter().for_each(|line| println!("  {line}"));
    }

    fn of(&self, name: &str) -> Option<Unit> {
        let all = self.in_memory.iter().chain(&self.cases);
        all.into_iter().find(|(known, _)| known == name).map(|(_, units)| Unit::middle(units))
    }

    /// Wall time in units of another case's.
    fn ratio(&self, wall: f64, other: &str) -> String {
        self.of(other).map_or("-".into(), |other| format!("{:5.3}", wall / other.wall.as_secs_f64()))
    }
}

fn put(cases: &mut Vec<(String, Vec<Unit>)>, name: &str, unit: Unit) {
    match cases.iter_mut().find(|(known, _)| known == name) {
        Some((_, units)) => units.push(unit),
        None => cases.push((name.to_owned(), vec![unit])),
    }
}
