//! Trying again while a store or server may come back.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tells `first` of the first failure that is tried again. Calls `attempt` until it succeeds, fails for good, or `budget` is used up; then its last error counts. Pauses
/// grow from 0.1 s to 10 s and are never longer than what is left.
pub async fn within<T, F>(
    budget: Duration,
    first: impl FnOnce(&Error),
    mut attempt: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let start = Instant::now();
    let (mut pause, mut first) = (FIRST_PAUSE, Some(first));
    loop {
        match attempt().await {
            Err(error) if error.kind().is_transient() => {
                let left = budget.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Err(error);
                }
                if let Some(first) = first.take() {
                    first(&error);
                }
                tokio::time::sleep(pause.min(left)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}
