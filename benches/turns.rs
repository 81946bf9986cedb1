//! Cases that take turns, so that whatever else the machine does disturbs all of them alike.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Whether everything shall just run once: `cargo bench -- --test`.
pub fn smoke() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// What one case took, as medians over all rounds.
#[derive(Debug, Clone)]
pub struct Row {
    /// The case.
    pub name: String,
    /// Wall time.
    pub wall: Duration,
    /// CPU time of the calling thread: what to compare on a machine that is not quiet.
    pub cpu: Duration,
}

/// One thing to measure, and what it is called.
pub type Case<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Runs all cases once for warming up, then in turn for `rounds` rounds.
pub fn turns(rounds: usize, cases: &mut [Case<'_>]) -> Vec<Row> {
    let rounds = if smoke() { 1 } else { rounds };
    cases.iter_mut().for_each(|(_, run)| run());
    let mut taken: Vec<Vec<(Duration, Duration)>> = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for ((_, run), taken) in cases.iter_mut().zip(&mut taken) {
            let (wall, cpu) = (Instant::now(), thread_time());
            run();
            taken.push((wall.elapsed(), thread_time().saturating_sub(cpu)));
        }
    }
    let medians = taken.iter().map(|taken| {
        let (wall, cpu): (Vec<_>, Vec<_>) = taken.iter().copied().unzip();
        (median(wall), median(cpu))
    });
    let rows = cases.iter().zip(medians);
    rows.map(|((name, _), (wall, cpu))| Row { name: (*name).to_owned(), wall, cpu }).collect()
}

/// The middle of some durations.
pub fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort_unstable();
    taken.get(taken.len() / 2).copied().unwrap_or_default()
}

/// CPU time of the calling thread since it began.
pub fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
