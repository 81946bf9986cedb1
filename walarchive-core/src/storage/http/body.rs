//! Bodies that are watched for progress.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::place::Place;
use super::service::interrupted;

/// Pieces of this many bytes go to the connection, so that a slow network is seen to make progress.
const PIECE: usize = 16 << 10;

/// What took too long, and how long it was allowed to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Late {
    /// Name lookup, TCP, TLS.
    #[error("no connection within {0:?} (timeout for connecting)")]
    Connect(Duration),
    /// The head of the answer.
    #[error("no answer within {0:?} after the request was sent (timeout for the first byte)")]
    FirstByte(Duration),
    /// The body of the request.
    #[error("no byte of the request was taken for {0:?} (timeout for stalls)")]
    Sending(Duration),
    /// The body of the answer.
    #[error("no byte of the answer came for {0:?} (timeout for stalls)")]
    Receiving(Duration),
}

impl From<Late> for HttpError {
    fn from(late: Late) -> HttpError {
        HttpError::new(HttpErrorKind::Timeout, late)
    }
}

/// The limits of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub connect: Duration,
    pub first_byte: Duration,
    pub stall: Duration,
}

/// How far the body of a request is.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    sent: Notify,
}

#[derive(Debug)]
struct State {
    /// When the last byte moved; when it all began, as long as none has.
    moved: Instant,
    begun: bool,
    /// The connection has taken all pieces.
    ended: bool,
    /// Pieces that the connection has taken and not yet written.
    unwritten: usize,
}

impl Progress {
    /// Of a request that begins now, with a body of `length` bytes.
    pub(super) fn new(length: usize) -> Progress {
        let state = State { moved: Instant::now(), begun: false, ended: length == 0, unwritten: 0 };
        Progress { state: Mutex::new(state), sent: Notify::new() }
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.moved = Instant::now();
        change(&mut state);
        if state.ended && state.unwritten == 0 {
            self.sent.notify_one();
        }
    }

    fn deadline(&self, limits: &Limits) -> (Instant, Late) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = state.ended && state.unwritten == 0;
        let (allowed, late) = match (state.begun, sent) {
            // Nobody says when the connection of a request without a body is made.
            (false, true) => (limits.connect + limits.first_byte, Late::FirstByte(limits.first_byte)),
            (false, false) => (limits.connect + limits.stall, Late::Connect(limits.connect)),
            (true, false) => (limits.stall, Late::Sending(limits.stall)),
            (true, true) => (limits.first_byte, Late::FirstByte(limits.first_byte)),
        };
        (state.moved + allowed, late)
    }

    /// Comes back when one of the limits has passed.
    pub(super) async fn overdue(&self, limits: &Limits) -> Late {
        loop {
            let (deadline, late) = self.deadline(limits);
            if Instant::now() >= deadline {
                return late;
            }
            // When the body is out, another limit counts, which may be nearer.
            let _ = tokio::time::timeout_at(deadline, self.sent.notified()).await;
        }
    }
}

/// The body of a request: `pieces`, in small portions.
pub(super) struct Sending {
    pieces: std::vec::IntoIter<Bytes>,
    current: Bytes,
    left: u64,
    progress: Arc<Progress>,
}

impl Sending {
    pub(super) fn new(pieces: Vec<Bytes>, progress: Arc<Progress>) -> Sending {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Sending { pieces: pieces.into_iter(), current: Bytes::new(), left, progress }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        while self.current.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.current = piece,
                None => return Poll::Ready(None),
            }
        }
        let length = self.current.len().min(PIECE);
        let bytes = self.current.split_to(length);
        self.left -= length as u64;
        let ended = self.left == 0;
        self.progress.note(|state| {
            state.begun = true;
            state.ended = ended;
            state.unwritten += 1;
        });
        let written = Written { bytes, progress: self.progress.clone() };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(written)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Bytes that the connection drops when it has written them.
struct Written {
    bytes: Bytes,
    progress: Arc<Progress>,
}

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.progress.note(|state| state.unwritten -= 1);
    }
}

/// The body of an answer, which may not stall.
pub(super) struct Receiving {
    body: reqwest::Body,
    stall: Duration,
    place: Place,
    sleep: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Receiving {
    /// `place`: where it comes from.
    pub(super) fn new(body: reqwest::Body, stall: Duration, place: Place) -> Receiving {
        Receiving { body, stall, place, sleep: Box::pin(tokio::time::sleep(stall)), waiting: false }
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| this.place.of(interrupted(error)))));
        }
        // The clock runs while somebody waits, not while the reader is busy elsewhere.
        if !std::mem::replace(&mut this.waiting, true) {
            this.sleep.as_mut().reset(Instant::now() + this.stall);
        }
        match this.sleep.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(this.place.of(Late::Receiving(this.stall).into())))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
