//! The payload of age: chunks of 64 KiB, each sealed on its own, the last one marked as such.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};

use crate::error::{Error, Result};

/// Content of a full chunk in bytes.
pub(super) const CHUNK: usize = 64 * 1024;

/// Length of the tag that ends every chunk.
pub(super) const TAG: usize = 16;

/// Length of a full chunk as it is stored.
pub(super) const SEALED: usize = CHUNK + TAG;

/// Fewer chunks than this are not worth starting a thread for.
const WORTH_THREADS: usize = 4;

/// The key of one payload.
#[derive(Clone)]
pub(super) struct PayloadKey(ChaCha20Poly1305);

impl PayloadKey {
    pub(super) fn new(key: &[u8; 32]) -> Result<Self> {
        ChaCha20Poly1305::new_from_slice(key)
            .map(PayloadKey)
            .map_err(|_| Error::bug("ChaCha20-Poly1305 refuses a key of 32 bytes"))
    }

    /// Seals chunks in place. `buffer` is chunk after chunk, each with room for its tag behind it; all but
    /// the last one are full, and the last one ends the payload if `ends` says so.
    pub(super) fn seal(&self, first: u64, buffer: &mut [u8], ends: bool, threads: usize) -> Result<()> {
        let count = buffer.len().div_ceil(SEALED);
        let failures = AtomicUsize::new(0);
        let chunks = buffer.chunks_mut(SEALED).zip(first..).enumerate();
        on_threads(threads, count, chunks, |(place, (chunk, index))| {
            if self.seal_chunk(index, ends && place + 1 == count, chunk).is_none() {
                failures.fetch_add(1, Ordering::Relaxed);
            }
        });
        if failures.into_inner() > 0 {
            return Err(Error::bug("ChaCha20-Poly1305 refuses a chunk of 64 KiB"));
        }
        Ok(())
    }

    fn seal_chunk(&self, index: u64, last: bool, chunk: &mut [u8]) -> Option<()> {
        let (content, tag) = chunk.split_at_mut_checked(chunk.len().checked_sub(TAG)?)?;
        let made = self.0.encrypt_inout_detached(&nonce(index, last), b"", content.into()).ok()?;
        tag.copy_from_slice(&made);
        Some(())
    }

    /// Opens chunks that follow each other and appends their content to `out`. All but the last one are
    /// full; `ends` says that the last one has to end the payload. On failure `out` has been given what
    /// was proven before it.
    pub(super) fn open(
        &self,
        first: u64,
        sealed: &[u8],
        ends: bool,
        threads: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.reserve(sealed.len());
        let count = sealed.len().div_ceil(SEALED);
        // The chunk that ends the payload may be short or wrong in more ways than one: it is done alone.
        let full = if ends { count.saturating_sub(1) } else { count };
        let opened = if threads > 1 && full >= WORTH_THREADS {
            self.open_full(first, &sealed[..full * SEALED], threads, out)
        } else {
            0
        };
        for (place, (chunk, index)) in sealed.chunks(SEALED).zip(first..).enumerate().skip(opened) {
            self.open_chunk(index, chunk, ends && place + 1 == count, out)?;
        }
        Ok(())
    }

    /// Opens full chunks on several threads; gives how many were proven before the first that was not.
    fn open_full(&self, first: u64, sealed: &[u8], threads: usize, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let count = sealed.len() / SEALED;
        for chunk in sealed.chunks(SEALED) {
            out.extend_from_slice(&chunk[..CHUNK]);
        }
        let proven = AtomicUsize::new(count);
        let chunks = out[start..].chunks_mut(CHUNK).zip(sealed.chunks(SEALED)).zip(first..).enumerate();
        on_threads(threads, count, chunks, |(place, ((content, chunk), index))| {
            if !self.open_in_place(index, false, content, &chunk[CHUNK..]) {
                proven.fetch_min(place, Ordering::Relaxed);
            }
        });
        let proven = proven.into_inner();
        out.truncate(start + proven * CHUNK);
        proven
    }

    fn open_chunk(&self, index: u64, chunk: &[u8], last: bool, out: &mut Vec<u8>) -> Result<()> {
        let Some((content, tag)) = chunk.split_at_checked(chunk.len().wrapping_sub(TAG)) else {
            return Err(damaged(index, "it is cut short"));
        };
        if content.is_empty() && index > 0 {
            return Err(damaged(index, "it is empty, and not the only one"));
        }
        let start = out.len();
        out.extend_from_slice(content);
        if self.open_in_place(index, last, &mut out[start..], tag) {
            return Ok(());
        }
        // Content that is sealed with the other mark is genuine; what is wrong is what follows it.
        if content.len() == CHUNK && self.open_in_place(index, !last, &mut out[start..], tag) {
            let what =
                if last { "the payload ends here, but more was sealed" } else { "data follows its end" };
            return Err(damaged(index, what));
        }
        out.truncate(start);
        Err(damaged(index, "its tag does not match: it was changed, moved or cut after it was written"))
    }

    /// Leaves `content` as it was when the tag does not match.
    fn open_in_place(&self, index: u64, last: bool, content: &mut [u8], tag: &[u8]) -> bool {
        let Ok(tag) = Tag::try_from(tag) else { return false };
        self.0.decrypt_inout_detached(&nonce(index, last), b"", content.into(), &tag).is_ok()
    }
}

fn nonce(index: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce.into()
}

fn damaged(index: u64, what: &str) -> Error {
    Error::damaged(format!("opening chunk {index} of an encrypted payload: {what}"))
}

/// Does `work` for all of `count` items, on up to `threads` threads if they are many. The calling thread
/// is one of them, so all work is done even where the system refuses to start another.
fn on_threads<I>(threads: usize, count: usize, items: I, work: impl Fn(I::Item) + Sync)
where
    I: Iterator + Send,
{
    if threads <= 1 || count < WORTH_THREADS {
        return items.for_each(work);
    }
    let items = Mutex::new(items);
    let worker = || {
        loop {
            let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            match item {
                Some(item) => work(item),
                None => break,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(count / 2) {
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
}

/// How much content a payload of `sealed` stored bytes has.
pub(super) fn content_len(sealed: u64) -> Result<u64> {
    let full = sealed / SEALED as u64;
    let content = match sealed % SEALED as u64 {
        0 if full > 0 => Some(full * CHUNK as u64),
        rest if rest > TAG as u64 => Some(full * CHUNK as u64 + rest - TAG as u64),
        rest if rest == TAG as u64 && full == 0 => Some(0),
        _ => None,
    };
    content.ok_or_else(|| {
        Error::damaged(format!(
            "opening an encrypted payload: none can be {sealed} bytes long, it is cut short"
        ))
    })
}

/// The stored bytes of the chunks that hold the content `plain`.
///
/// No content needs no chunk, except where there is none at all: that this is so, the only chunk proves.
pub(super) fn chunks_of(plain: &Range<u64>, sealed_len: u64) -> Range<u64> {
    let start = (plain.start / CHUNK as u64).saturating_mul(SEALED as u64).min(sealed_len);
    if sealed_len == TAG as u64 {
        return 0..sealed_len;
    }
    if plain.is_empty() {
        return start..start;
    }
    let end = plain.end.div_ceil(CHUNK as u64).saturating_mul(SEALED as u64).min(sealed_len);
    start..end.max(start)
}
