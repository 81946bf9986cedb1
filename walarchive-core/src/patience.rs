//! Trying again while a store or server may come back, within one budget.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Is told of a failure that is tried again, and how long at most.
type Notice = dyn Fn(&Error, Duration) + Send + Sync;

/// How long operations are tried again.
#[derive(Clone)]
pub struct Patience {
    budget: Duration,
    until: Option<Instant>,
    notice: Arc<Notice>,
}

impl Patience {
    /// Each operation is tried again for `budget` from its beginning.
    pub fn each(budget: Duration) -> Patience {
        Patience { budget, until: None, notice: Arc::new(|_, _| ()) }
    }

    /// All operations together are tried again for `budget` from now.
    pub fn altogether(budget: Duration) -> Patience {
        Patience { until: Instant::now().checked_add(budget), ..Patience::each(budget) }
    }

    /// Nothing is tried again.
    pub fn none() -> Patience {
        Patience::each(Duration::ZERO)
    }

    /// Calls `notice` at an operation's first failure that is tried again, with the time that is left.
    #[must_use]
    pub fn noticed_by(self, notice: impl Fn(&Error, Duration) + Send + Sync + 'static) -> Patience {
        Patience { notice: Arc::new(notice), ..self }
    }

    /// Calls `attempt` until it succeeds, fails for good, or the budget is used up; then its last error counts. Pauses
    /// grow from about 0.1 s to 10 s, each between half and all of its length by chance; a store that says when it wants
    /// to be asked again is obeyed, as long as the budget allows.
    pub async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let until = self.until.or_else(|| Instant::now().checked_add(self.budget));
        let left = || until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let mut pause = FIRST_PAUSE;
        let mut first = true;
        loop {
            let error = match attempt().await {
                Err(error) if error.kind().is_transient() && !left().is_zero() => error,
                done => return done,
            };
            if std::mem::take(&mut first) {
                (self.notice)(&error, left());
            }
            let wanted = error.retry_after().unwrap_or_else(|| jittered(pause));
            tokio::time::sleep(wanted.min(left())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patience({:?})", self.budget)
    }
}

/// Between half of `pause` and all of it, so that many clients do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0u8; 2];
    // Without random numbers, all of it.
    let share = match getrandom::fill(&mut random) {
        Ok(()) => u32::from(u16::from_le_bytes(random)),
        Err(_) => u32::from(u16::MAX),
    };
    pause / 2 + pause / 2 * share / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Kind;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test)
    }

    #[test]
    fn jitter_keeps_half_to_all() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(10));
            assert!(pause >= Duration::from_secs(5) && pause <= Duration::from_secs(10), "{pause:?}");
        }
    }

    #[test]
    fn permanent_errors_fail_at_once() {
        let calls = Cell::new(0);
        let failed: Result<()> = run(Patience::each(Duration::from_secs(60)).run(async || {
            calls.set(calls.get() + 1);
            Err(Error::new(Kind::Denied, "no"))
        }));
        assert_eq!((failed.unwrap_err().kind(), calls.get()), (Kind::Denied, 1));
    }

    #[test]
    fn a_budget_of_nothing_tries_once() {
        let calls = Cell::new(0);
        let failed: Result<()> = run(Patience::none().run(async || {
            calls.set(calls.get() + 1);
            Err(Error::new(Kind::Unreachable, "away"))
        }));
        assert_eq!((failed.unwrap_err().kind(), calls.get()), (Kind::Unreachable, 1));
    }

    #[test]
    fn it_is_noticed_once_and_tried_until_it_works() {
        let (calls, noticed) = (Cell::new(0), Arc::new(std::sync::atomic::AtomicU32::new(0)));
        let count = noticed.clone();
        let patience = Patience::altogether(Duration::from_secs(60)).noticed_by(move |_, _| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let done = run(patience.run(async || {
            calls.set(calls.get() + 1);
            if calls.get() < 4 { Err(Error::new(Kind::Unreachable, "away")) } else { Ok(calls.get()) }
        }));
        assert_eq!((done.unwrap(), noticed.load(std::sync::atomic::Ordering::Relaxed)), (4, 1));
    }
}
