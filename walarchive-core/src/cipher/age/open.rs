//! Opening one object.

use std::ops::Range;

use bytes::Bytes;

use super::stream::{self, CHUNK, PayloadKey, SEALED};
use crate::cipher::{Open, OpenStream, check_range, check_stored};
use crate::error::{Error, Result};

/// An object whose payload key is known.
pub(super) struct AgeOpen {
    key: PayloadKey,
    commitment: [u8; 32],
    threads: usize,
}

impl AgeOpen {
    pub(super) fn new(key: PayloadKey, commitment: [u8; 32], threads: usize) -> Self {
        AgeOpen { key, commitment, threads }
    }
}

impl Open for AgeOpen {
    fn commitment(&self) -> Option<[u8; 32]> {
        Some(self.commitment)
    }

    fn plain_len(&self, sealed: u64) -> Result<u64> {
        stream::content_len(sealed)
    }

    fn sealed_range(&self, plain: Range<u64>, sealed_len: u64) -> Range<u64> {
        stream::chunks_of(&plain, sealed_len)
    }

    fn open_range(&self, plain: Range<u64>, sealed: &[u8], sealed_len: u64) -> Result<Bytes> {
        check_range(&plain, self.plain_len(sealed_len)?)?;
        let wanted = self.sealed_range(plain.clone(), sealed_len);
        check_stored(&wanted, sealed)?;
        if sealed.is_empty() {
            return Ok(Bytes::new());
        }
        let first = wanted.start / SEALED as u64;
        let mut content = Vec::with_capacity(sealed.len());
        self.key.open(first, sealed, wanted.end == sealed_len, self.threads, &mut content)?;
        let content = Bytes::from(content);
        let skipped = first * CHUNK as u64;
        match (usize::try_from(plain.start - skipped), usize::try_from(plain.end - skipped)) {
            (Ok(start), Ok(end)) if end <= content.len() => Ok(content.slice(start..end)),
            _ => Err(Error::bug("the chunks of a range hold less than the range")),
        }
    }

    fn stream(&self) -> Box<dyn OpenStream> {
        Box::new(AgeOpenStream {
            key: self.key.clone(),
            threads: self.threads,
            pending: Vec::new(),
            index: 0,
            failed: false,
        })
    }
}

/// A payload being opened in order.
struct AgeOpenStream {
    key: PayloadKey,
    threads: usize,
    /// At most one chunk: the last one is marked, so none is opened before it is known what follows.
    pending: Vec<u8>,
    /// Index of the pending chunk.
    index: u64,
    failed: bool,
}

impl AgeOpenStream {
    fn advance(&mut self, mut sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if !self.pending.is_empty() {
            let (now, rest) = sealed.split_at(sealed.len().min(SEALED - self.pending.len()));
            self.pending.extend_from_slice(now);
            sealed = rest;
        }
        if sealed.is_empty() {
            return Ok(());
        }
        if !self.pending.is_empty() {
            self.key.open(self.index, &self.pending, false, 1, out)?;
            self.index += 1;
            self.pending.clear();
        }
        let followed = (sealed.len() - 1) / SEALED;
        let (now, rest) = sealed.split_at(followed * SEALED);
        self.key.open(self.index, now, false, self.threads, out)?;
        self.index += followed as u64;
        self.pending.reserve_exact(SEALED);
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    fn refuse_after_failure(&self) -> Result<()> {
        if self.failed {
            return Err(Error::damaged("opening an encrypted payload: an earlier part of it was damaged"));
        }
        Ok(())
    }
}

impl OpenStream for AgeOpenStream {
    fn push(&mut self, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.refuse_after_failure()?;
        let result = self.advance(sealed, out);
        self.failed = result.is_err();
        result
    }

    fn finish(self: Box<Self>, out: &mut Vec<u8>) -> Result<()> {
        self.refuse_after_failure()?;
        if self.pending.is_empty() {
            return Err(Error::damaged("opening an encrypted payload: it has no chunk, it is cut short"));
        }
        self.key.open(self.index, &self.pending, true, 1, out)
    }
}
