//! What long work tells while it goes on, and how it is ended.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// Hears of the progress of one piece of work, and may end it. Called from several threads.
pub trait Progress: Send + Sync {
    /// Work of `total` bytes begins; `what` names it for people.
    fn begin(&self, what: &str, total: u64);

    /// That many bytes more are done; 0 where it is only asked whether to go on, as while the work waits for something.
    /// An error ends the work: it cleans up and fails with it, and nothing is left that looks like a whole thing.
    fn advance(&self, bytes: u64) -> Result<()>;

    /// Something that people should know while the work goes on.
    fn note(&self, message: &str);

    /// The work that began last is over.
    fn end(&self);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) -> Result<()> {
        Ok(())
    }
    fn note(&self, _: &str) {}
    fn end(&self) {}
}

/// How often short work asks whether to go on.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Carries out `work` as long as `progress` wants it, which is asked at the beginning and ten times a second. Work that is not
/// wanted any more is dropped.
pub async fn while_wanted<T>(progress: &dyn Progress, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    loop {
        progress.advance(0)?;
        if let Ok(done) = tokio::time::timeout(ASKED_EVERY, &mut work).await {
            return done;
        }
    }
}

/// Ends work from outside, from any thread. Clones are one.
///
/// ```
/// use std::sync::Arc;
/// use walarchive_core::Kind;
/// use walarchive_core::progress::{Cancel, Progress, Silent};
///
/// let cancel = Cancel::default();
/// let progress = cancel.watched(Arc::new(Silent));
/// assert!(progress.advance(1).is_ok());
/// cancel.cancel();
/// assert_eq!(progress.advance(1).unwrap_err().kind(), Kind::Cancelled);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the work that watches; it returns an error of kind [`Cancelled`](Kind::Cancelled) soon after.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether an end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once an end was asked for.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::new(Kind::Cancelled, "cancelled by the caller")),
            false => Ok(()),
        }
    }

    /// `inner`, for work that this ends.
    pub fn watched(&self, inner: Arc<dyn Progress>) -> Arc<dyn Progress> {
        Arc::new(Watched { cancel: self.clone(), inner })
    }
}

struct Watched {
    cancel: Cancel,
    inner: Arc<dyn Progress>,
}

impl Progress for Watched {
    fn begin(&self, what: &str, total: u64) {
        self.inner.begin(what, total);
    }

    fn advance(&self, bytes: u64) -> Result<()> {
        self.cancel.check()?;
        self.inner.advance(bytes)
    }

    fn note(&self, message: &str) {
        self.inner.note(message);
    }

    fn end(&self) {
        self.inner.end();
    }
}

impl fmt::Debug for dyn Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
