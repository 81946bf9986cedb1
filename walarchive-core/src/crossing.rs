//! Between async code and blocking threads: the only place where either waits for the other.

use std::future::Future;

use tokio::runtime::Handle;

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
