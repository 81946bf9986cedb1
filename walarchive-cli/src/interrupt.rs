//! Being told to stop.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::runtime::Runtime;
use walarchive_core::{Error, Kind, Result};

const PAUSE: Duration = Duration::from_millis(10);

/// Remembers the signal that told this process to stop. Everything that waits looks here, so that what was started is
/// ended and removed on the usual way out.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Catches the signals that ask for an end, from now on.
    pub(crate) fn listen() -> Result<Interrupt> {
        let seen = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, seen.clone(), number)
                .map_err(|error| Error::io("cannot listen for signals", error))?;
        }
        Ok(Interrupt(seen))
    }

    /// The signal, once there was one.
    pub(crate) fn signal(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::SeqCst)).ok().filter(|signal| *signal != 0)
    }

    /// An error once there was one.
    pub(crate) fn check(&self) -> Result<()> {
        match self.signal() {
            Some(signal) => Err(failed(format!("stopped by signal {signal}"))),
            None => Ok(()),
        }
    }

    /// Waits for async work, until a signal comes.
    pub(crate) fn during<T>(&self, runtime: &Runtime, work: impl Future<Output = Result<T>>) -> Result<T> {
        runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                match tokio::time::timeout(PAUSE, work.as_mut()).await {
                    Ok(done) => return done,
                    Err(_) => self.check()?,
                }
            }
        })
    }

    /// Asks `done` every few milliseconds until it says yes; an error when `limit` has passed or a signal came.
    pub(crate) fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.check()?;
            if done()? {
                return Ok(());
            }
            if begun.elapsed() > limit {
                return Err(failed(format!("waited {} s in vain until {what}", limit.as_secs())));
            }
            thread::sleep(PAUSE);
        }
    }
}

fn failed(message: String) -> Error {
    Error::new(Kind::Local, message)
}
