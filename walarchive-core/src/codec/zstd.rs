//! Zstandard, with content checksums.

use std::io;

use async_compression::codecs::zstd::params::{CParameter, DParameter};
use async_compression::codecs::{ZstdDecoder, ZstdEncoder};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use super::engine::{StreamDecoder, StreamEncoder, exact};
use super::{Codec, CodecId, Decoder, Encoder, Framer};
use crate::error::{Error, Kind, Result};

/// The magic number of a frame, as stored.
pub(super) const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// The largest window that a stream may ask for, as a power of two: 128 MiB, the limit of `zstd -d`.
const WINDOW_LOG_MAX: u32 = 27;

/// Zstandard at one level.
#[derive(Debug)]
pub(super) struct Zstd {
    level: i32,
}

impl Zstd {
    /// Zstandard at `level`.
    pub(super) fn new(level: i32) -> Self {
        Zstd { level }
    }
}

impl Codec for Zstd {
    fn id(&self) -> CodecId {
        CodecId::Zstd
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        let engine = ZstdEncoder::new_with_params(self.level, &[CParameter::checksum_flag(true)]);
        Ok(Box::new(StreamEncoder::new(self.id(), engine)))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        Ok(decoder(self.id()))
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        let failed = |source| Error::io("preparing zstd", source);
        let mut compressor = Compressor::new(self.level).map_err(failed)?;
        compressor.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).map_err(failed)?;
        Ok(Box::new(ZstdFramer { compressor, unpacker: Unpacker::new(self.id())? }))
    }
}

/// A reader of zstd frames that belong to codec `id`.
pub(super) fn decoder(id: CodecId) -> Box<dyn Decoder> {
    let engine = ZstdDecoder::new_with_params(&[DParameter::window_log_max(WINDOW_LOG_MAX)]);
    Box::new(StreamDecoder::new(id, engine))
}

struct ZstdFramer {
    compressor: Compressor<'static>,
    unpacker: Unpacker,
}

impl Framer for ZstdFramer {
    fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.reserve(zstd_safe::compress_bound(plain.len()));
        append(out, |end| self.compressor.compress_to_buffer(plain, end)).map_err(|source| {
            out.truncate(start);
            Error::io(format_args!("compressing {} bytes with zstd", plain.len()), source)
        })
    }

    fn unpack(&mut self, frame: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()> {
        self.unpacker.unpack(frame, plain_len, out)
    }
}

/// Lets `step` write behind the end of `out`, into the capacity that it has.
fn append(
    out: &mut Vec<u8>,
    step: impl FnOnce(&mut io::Cursor<&mut Vec<u8>>) -> io::Result<usize>,
) -> io::Result<()> {
    let end = out.len() as u64;
    let mut cursor = io::Cursor::new(out);
    cursor.set_position(end);
    step(&mut cursor).map(drop)
}

/// A reusable reader of zstd frames that name their content's size.
pub(super) struct Unpacker {
    id: CodecId,
    decompressor: Decompressor<'static>,
}

impl Unpacker {
    /// A reader of frames that belong to codec `id`.
    pub(super) fn new(id: CodecId) -> Result<Self> {
        let decompressor = Decompressor::new().map_err(|source| Error::io("preparing zstd", source))?;
        Ok(Unpacker { id, decompressor })
    }

    /// See [`Framer::unpack`].
    pub(super) fn unpack(&mut self, frame: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let result = self.try_unpack(frame, plain_len, out);
        result.inspect_err(|_| out.truncate(start))
    }

    fn try_unpack(&mut self, frame: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let damaged = |found: &str| {
            Error::damaged(format!("unpacking a {} frame of {} bytes: {found}", self.id.name(), frame.len()))
        };
        if !frame.starts_with(&MAGIC) {
            return Err(damaged("its magic number does not hold"));
        }
        // The header's own word comes before any memory is set aside for it.
        let named =
            zstd_safe::get_frame_content_size(frame).map_err(|_| damaged("its header does not hold"))?;
        if named.is_some_and(|named| named != plain_len as u64) {
            return Err(damaged("its header names another length than it should have"));
        }
        out.try_reserve(plain_len).map_err(|source| {
            Error::new(Kind::Local, format!("setting aside {plain_len} bytes of memory")).because(source)
        })?;
        append(out, |end| self.decompressor.decompress_to_buffer(frame, end))
            .map_err(|source| damaged("the data does not hold").because(source))?;
        exact(self.id, plain_len, out.len() - start)
    }
}
