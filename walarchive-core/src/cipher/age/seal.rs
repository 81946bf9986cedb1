//! Sealing one object.

use bytes::{Bytes, BytesMut};

use super::header::{self, Addressed, Header, NONCE};
use super::keys::{FileKey, Recipient, random};
use super::stream::{CHUNK, PayloadKey, SEALED, TAG};
use crate::cipher::Seal;
use crate::error::Result;

/// Chunks that each thread is given at a time.
const CHUNKS_PER_THREAD: usize = 8;

/// The most chunks that are held back for the sake of threads: 4 MiB.
const MOST_CHUNKS: usize = 64;

/// One object being sealed: content is collected where it will be sealed, with room for the tags.
pub(super) struct AgeSeal {
    file_key: FileKey,
    to: Addressed,
    nonce: [u8; NONCE],
    key: PayloadKey,
    threads: usize,
    /// Chunks, the last of which is still being filled.
    buffer: BytesMut,
    /// Content of the chunk that is being filled.
    filled: usize,
    /// Index of the first chunk in the buffer.
    first: u64,
}

impl AgeSeal {
    pub(super) fn new(recipients: &[Recipient], threads: usize) -> Result<Self> {
        let file_key = FileKey::generate()?;
        let to = Header::addressed(&file_key, recipients)?;
        let nonce = *random()?;
        let key = file_key.payload_key(&nonce)?;
        let buffer = BytesMut::new();
        Ok(AgeSeal { file_key, to, nonce, key, threads, buffer, filled: 0, first: 0 })
    }

    fn batch(&self) -> usize {
        match self.threads {
            0 | 1 => 1,
            threads => threads.saturating_mul(CHUNKS_PER_THREAD).min(MOST_CHUNKS),
        }
    }

    /// Ends the chunk that is being filled, and seals the buffer when it is full or the payload ends.
    fn end_chunk(&mut self, ends: bool, out: &mut Vec<Bytes>) -> Result<()> {
        self.buffer.extend_from_slice(&[0; TAG]);
        self.filled = 0;
        if !ends && self.buffer.len() < self.batch() * SEALED {
            return Ok(());
        }
        self.key.seal(self.first, &mut self.buffer, ends, self.threads)?;
        self.first += (self.buffer.len() / SEALED) as u64;
        out.push(std::mem::take(&mut self.buffer).freeze());
        Ok(())
    }
}

impl Seal for AgeSeal {
    fn head(&self, binding: &[u8]) -> Result<Bytes> {
        header::write(&self.to, binding, &self.file_key, &self.nonce, 0).map(Bytes::from)
    }

    fn commitment(&self) -> Result<Option<[u8; 32]>> {
        self.file_key.commitment().map(Some)
    }

    fn sealed_len(&self, plain: u64) -> u64 {
        plain.saturating_add(plain.div_ceil(CHUNK as u64).max(1).saturating_mul(TAG as u64))
    }

    fn push(&mut self, mut plain: &[u8], out: &mut Vec<Bytes>) -> Result<()> {
        while !plain.is_empty() {
            // A full chunk is only sealed when something follows, as the last one is marked.
            if self.filled == CHUNK {
                self.end_chunk(false, out)?;
            }
            if self.buffer.capacity() == 0 {
                self.buffer.reserve(self.batch() * SEALED);
            }
            let (now, rest) = plain.split_at(plain.len().min(CHUNK - self.filled));
            self.buffer.extend_from_slice(now);
            self.filled += now.len();
            plain = rest;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<Bytes>) -> Result<()> {
        self.end_chunk(true, out)
    }
}
