//! Between async code and blocking threads: the only place where either waits for the other.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Result};

/// Runs `work` on a thread that may block, and waits for it without blocking this one. Outside a tokio runtime
/// it runs right here. A panic in `work` becomes an error of kind `Bug`.
pub async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match Handle::try_current() {
        Ok(runtime) => match runtime.spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(Error::bug("a worker stopped unexpectedly").because(error)),
        },
        Err(_) => work(),
    }
}

/// Runs the library's async calls for callers that are not async themselves. Any number of threads may wait at once.
///
/// ```
/// use walarchive_core::storage::MemoryStorage;
/// use walarchive_core::{Archive, Blocking};
///
/// let blocking = Blocking::new()?;
/// let (made, _) = blocking.wait(Archive::init(&MemoryStorage::default(), true))?;
/// assert!(made.encrypted());
/// # Ok::<(), walarchive_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Blocking(Option<Runtime>);

impl Blocking {
    /// A runtime of its own, without a thread of its own: calls run on the thread that waits for them.
    pub fn new() -> Result<Blocking> {
        let built = Builder::new_current_thread().enable_all().build();
        built.map(|runtime| Blocking(Some(runtime))).map_err(|error| Error::io("cannot start", error))
    }

    /// Waits for `work`.
    ///
    /// # Errors
    ///
    /// Those of `work`, and `Usage` on a thread that drives async code: waiting there would keep everything else from
    /// going on.
    pub fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if Handle::try_current().is_ok() {
            return Err(Error::usage(
                "a blocking call was made in async code, or by a callback of such a call",
            )
            .hint("await the async one; let callbacks return first"));
        }
        match &self.0 {
            Some(runtime) => runtime.block_on(work),
            None => Err(Error::bug("a runtime was used after its end")),
        }
    }
}

impl Drop for Blocking {
    /// Work that was left behind is not waited for: it may be waiting for a network.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets a blocking worker wait for async calls. Made in async code, used on threads of [`blocking`] only: waiting
/// on a thread that drives the runtime would never end.
#[derive(Debug, Clone)]
pub struct Bridge(Handle);

impl Bridge {
    /// The bridge to the runtime that the caller runs on.
    pub fn current() -> Result<Bridge> {
        Handle::try_current()
            .map(Bridge)
            .map_err(|error| Error::usage("this call needs a tokio runtime with time enabled").because(error))
    }

    /// Waits for `future` on this blocking thread.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }

    /// Starts `future` beside the worker.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.spawn(future)
    }
}
