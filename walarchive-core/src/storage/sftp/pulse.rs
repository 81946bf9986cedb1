//! A stream that knows when it last moved.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until};

/// When something last came or went.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse(Arc::new(Mutex::new(Instant::now())))
    }

    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when nothing has come or gone for `limit`, counted from this call at the earliest.
    pub(super) async fn stopped(&self, limit: Duration) {
        let begun = Instant::now();
        let due = || begun.max(self.last()).checked_add(limit);
        while let Some(moment) = due() {
            sleep_until(moment).await;
            if due().is_some_and(|due| due <= Instant::now()) {
                // This thread may have been busy elsewhere: what has come meanwhile is read now.
                sleep(Duration::from_millis(20)).await;
                if due().is_some_and(|due| due <= Instant::now()) {
                    return;
                }
            }
        }
        std::future::pending().await
    }
}

/// A stream whose every movement is a beat of its pulse.
pub(super) struct Beating<S> {
    pub(super) stream: S,
    pub(super) pulse: Pulse,
}

impl<S: AsyncRead + Unpin> AsyncRead for Beating<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.pulse.beat();
        Poll::Ready(done)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Beating<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.pulse.beat();
        Poll::Ready(done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_stops_only_when_nothing_moves() {
        let pulse = Pulse::new();
        let limit = Duration::from_secs(10);
        let begun = Instant::now();
        let mover = pulse.clone();
        let moving = async move {
            for _ in 0..5 {
                sleep(Duration::from_secs(6)).await;
                mover.beat();
            }
        };
        tokio::join!(moving, pulse.stopped(limit));
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_secs(40) && waited < Duration::from_secs(41), "{waited:?}");
    }
}
