//! No compression: zstd frames of raw blocks, so that content has a checksum and `zstd -d` opens it.

use std::hash::Hasher;

use twox_hash::XxHash64;

use super::zstd::{MAGIC, Unpacker, decoder};
use super::{Codec, CodecId, Decoder, Encoder, Framer};
use crate::error::Result;

/// The largest block that the format allows, in bytes.
const BLOCK: usize = 128 << 10;

/// Frame header descriptor: the frame ends with a content checksum.
const CHECKSUM: u8 = 1 << 2;

/// Frame header descriptor: one segment, an eight byte content size follows.
const SIZED: u8 = (3 << 6) | (1 << 5);

/// Window descriptor: 128 KiB, the least that allows blocks of that size.
const WINDOW: u8 = 7 << 3;

/// Content as it is.
#[derive(Debug)]
pub(super) struct Plain;

impl Codec for Plain {
    fn id(&self) -> CodecId {
        CodecId::None
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(RawEncoder { started: false, pending: Vec::new(), hash: XxHash64::with_seed(0) }))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        Ok(decoder(self.id()))
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        Ok(Box::new(RawFramer { unpacker: Unpacker::new(self.id())? }))
    }
}

/// Appends a raw block; `block` has at most [`BLOCK`] bytes.
fn put_block(block: &[u8], last: bool, out: &mut Vec<u8>) {
    let header = ((block.len() as u32) << 3) | u32::from(last);
    out.extend_from_slice(&header.to_le_bytes()[..3]);
    out.extend_from_slice(block);
}

/// Appends the end of a frame whose content has this hash.
fn put_checksum(hash: &XxHash64, out: &mut Vec<u8>) {
    out.extend_from_slice(&hash.finish().to_le_bytes()[..4]);
}

struct RawEncoder {
    started: bool,
    /// Less than a block, or a whole one that may turn out to be the last.
    pending: Vec<u8>,
    hash: XxHash64,
}

impl RawEncoder {
    fn start(&mut self, out: &mut Vec<u8>) {
        if !self.started {
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&[CHECKSUM, WINDOW]);
            self.started = true;
        }
    }
}

impl Encoder for RawEncoder {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.start(out);
        self.hash.write(plain);
        out.reserve(plain.len() + plain.len() / BLOCK * 3);
        let mut rest = plain;
        while !rest.is_empty() {
            if self.pending.len() == BLOCK {
                put_block(&self.pending, false, out);
                self.pending.clear();
            }
            if self.pending.is_empty() && rest.len() > BLOCK {
                put_block(&rest[..BLOCK], false, out);
                rest = &rest[BLOCK..];
                continue;
            }
            let taken = rest.len().min(BLOCK - self.pending.len());
            self.pending.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) -> Result<()> {
        self.start(out);
        put_block(&self.pending, true, out);
        put_checksum(&self.hash, out);
        Ok(())
    }
}

struct RawFramer {
    unpacker: Unpacker,
}

impl Framer for RawFramer {
    fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.reserve(plain.len() + (plain.len() / BLOCK + 1) * 3 + 17);
        out.extend_from_slice(&MAGIC);
        out.push(CHECKSUM | SIZED);
        out.extend_from_slice(&(plain.len() as u64).to_le_bytes());
        let mut blocks = plain.chunks(BLOCK).peekable();
        if blocks.peek().is_none() {
            put_block(&[], true, out);
        }
        while let Some(block) = blocks.next() {
            put_block(block, blocks.peek().is_none(), out);
        }
        let mut hash = XxHash64::with_seed(0);
        hash.write(plain);
        put_checksum(&hash, out);
        Ok(())
    }

    fn unpack(&mut self, frame: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.unpacker.unpack(frame, plain_len, out)
    }
}
