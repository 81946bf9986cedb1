//! Drives the engines of `async_compression`, which know one member or frame each, over streams that come
//! in any pieces.

use std::io;

use async_compression::codecs::{DecodeV2, EncodeV2};
use async_compression::core::util::{PartialBuffer, WriteBuffer};

use super::{Codec, CodecId, Decoder, Encoder, Framer, PlainSink};
use crate::error::{Error, Kind, Result};

/// The least and the most output room for one call of an engine, in bytes. The room is zeroed before each
/// call, so it stays inside the second level cache.
const ROOM: (usize, usize) = (4 << 10, 128 << 10);

/// The leading bytes of the skippable frames of zstd and lz4: `50 2A 4D 18` to `5F 2A 4D 18`.
const SKIPPABLE: [u8; 4] = [0x50, 0x2A, 0x4D, 0x18];

/// Gives an engine `room` bytes after the end of `out` and keeps what it wrote there.
fn grow<T>(
    out: &mut Vec<u8>,
    room: usize,
    step: impl FnOnce(&mut WriteBuffer<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let start = out.len();
    out.resize(start.saturating_add(room), 0);
    let mut output = WriteBuffer::new_initialized(&mut out[start..]);
    let result = step(&mut output);
    let written = output.written_len();
    out.truncate(start + written);
    result
}

/// A stream written by one engine.
pub(super) struct StreamEncoder {
    id: CodecId,
    engine: Box<dyn EncodeV2 + Send>,
}

impl StreamEncoder {
    /// A stream of codec `id`, written by a fresh `engine`.
    pub(super) fn new(id: CodecId, engine: impl EncodeV2 + Send + 'static) -> Self {
        StreamEncoder { id, engine: Box::new(engine) }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io(format_args!("compressing with {}", self.id.name()), source)
    }
}

impl Encoder for StreamEncoder {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut input = PartialBuffer::new(plain);
        while !input.unwritten().is_empty() {
            let before = (input.written_len(), out.len());
            let room = input.unwritten().len().clamp(ROOM.0, ROOM.1);
            grow(out, room, |output| self.engine.encode(&mut input, output))
                .map_err(|source| self.failed(source))?;
            if before == (input.written_len(), out.len()) {
                return Err(Error::bug(format!("the {} encoder stands still", self.id.name())));
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, out: &mut Vec<u8>) -> Result<()> {
        loop {
            let before = out.len();
            if grow(out, ROOM.1, |output| self.engine.finish(output)).map_err(|source| self.failed(source))? {
                return Ok(());
            }
            if before == out.len() {
                return Err(Error::bug(format!("the {} encoder never ends", self.id.name())));
            }
        }
    }
}

/// Where a [`StreamDecoder`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first byte.
    Start,
    /// Inside a member.
    Inside,
    /// Behind a member, where another may start.
    End,
    /// Behind damage.
    Damage,
}

/// Streams that follow each other, read by one engine.
pub(super) struct StreamDecoder {
    id: CodecId,
    engine: Box<dyn DecodeV2 + Send>,
    at: At,
    /// The first bytes of the member at hand, and how many are known.
    head: ([u8; 4], usize),
    /// Whether a member that can hold content has ended.
    content: bool,
    /// Where the engine writes to, and how much of it the last step filled.
    room: Vec<u8>,
    filled: usize,
}

impl StreamDecoder {
    /// A reader of streams of codec `id` over a fresh `engine`.
    pub(super) fn new(id: CodecId, engine: impl DecodeV2 + Send + 'static) -> Self {
        StreamDecoder {
            id,
            engine: Box::new(engine),
            at: At::Start,
            head: ([0; 4], 0),
            content: false,
            room: vec![0; ROOM.1],
            filled: 0,
        }
    }

    fn damaged(&mut self, found: &str) -> Error {
        self.at = At::Damage;
        Error::damaged(format!("unpacking a {} stream: {found}", self.id.name()))
    }

    /// Prepares for a byte that follows; a new member needs a fresh engine.
    fn enter(&mut self) -> Result<()> {
        match self.at {
            At::Damage => return Err(self.damaged("it was found damaged before")),
            At::End => {
                let fresh = self.engine.reinit();
                fresh.map_err(|source| self.damaged("no fresh decoder").because(source))?;
                self.head.1 = 0;
            }
            At::Start | At::Inside => {}
        }
        self.at = At::Inside;
        Ok(())
    }

    fn remember(&mut self, taken: &[u8]) {
        let (head, known) = &mut self.head;
        for (slot, byte) in head[*known..].iter_mut().zip(taken) {
            *slot = *byte;
            *known += 1;
        }
    }

    fn leave(&mut self) {
        let (mut head, known) = self.head;
        head[0] &= 0xF0;
        self.content |= known < head.len() || head != SKIPPABLE;
        self.at = At::End;
    }

    /// Runs the engine once, over `rest` and into the room; tells how many bytes it took.
    fn step(&mut self, rest: &[u8]) -> Result<usize> {
        let mut input = PartialBuffer::new(rest);
        let mut output = WriteBuffer::new_initialized(&mut self.room);
        let decoded = self.engine.decode(&mut input, &mut output);
        self.filled = output.written_len();
        let ended = decoded.map_err(|source| self.damaged("the data does not hold").because(source))?;
        let taken = input.written_len();
        self.remember(&rest[..taken]);
        if ended {
            self.leave();
        } else if taken == 0 && self.filled == 0 {
            return Err(self.damaged("it leads nowhere"));
        }
        Ok(taken)
    }
}

impl Decoder for StreamDecoder {
    fn push(&mut self, stored: &[u8], sink: PlainSink<'_>) -> Result<()> {
        let mut rest = stored;
        // The engines hold plain bytes back only in front of a trailer, so input drives out all there is.
        while !rest.is_empty() {
            self.enter()?;
            let taken = self.step(rest)?;
            rest = &rest[taken..];
            if self.filled > 0 {
                sink(&self.room[..self.filled]).inspect_err(|_| self.at = At::Damage)?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: PlainSink<'_>) -> Result<()> {
        match self.at {
            At::End if self.content => Ok(()),
            At::End => Err(self.damaged("it has frames to skip only")),
            At::Start => Err(self.damaged("it is empty")),
            At::Inside => Err(self.damaged("it ends too early")),
            At::Damage => Err(self.damaged("it was found damaged before")),
        }
    }
}

/// Frames written and read as streams, for codecs without a cheaper way.
#[cfg_attr(not(any(feature = "lz4", feature = "gzip", feature = "xz")), allow(dead_code))]
pub(super) struct StreamFramer<C> {
    codec: C,
}

#[cfg_attr(not(any(feature = "lz4", feature = "gzip", feature = "xz")), allow(dead_code))]
impl<C: Codec> StreamFramer<C> {
    /// Frames of `codec`.
    pub(super) fn new(codec: C) -> Self {
        StreamFramer { codec }
    }
}

impl<C: Codec> Framer for StreamFramer<C> {
    fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut encoder = self.codec.encoder()?;
        encoder.push(plain, out)?;
        encoder.finish(out)
    }

    fn unpack(&mut self, frame: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let mut decoder = self.codec.decoder()?;
        let id = self.codec.id();
        let mut sink = |plain: &[u8]| {
            out.extend_from_slice(plain);
            if out.len() - start > plain_len { exact(id, plain_len, out.len() - start) } else { Ok(()) }
        };
        let result = decoder.push(frame, &mut sink).and_then(|()| decoder.finish(&mut sink));
        let result = result.and_then(|()| exact(self.codec.id(), plain_len, out.len() - start));
        result.inspect_err(|_| out.truncate(start))
    }
}

/// Whether a frame gave as many bytes as it should.
pub(super) fn exact(id: CodecId, wanted: usize, found: usize) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    let message = format!("unpacking a {} frame: it holds {found} bytes instead of {wanted}", id.name());
    Err(Error::new(Kind::Damaged, message))
}
