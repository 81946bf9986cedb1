//! Xz, with CRC-64 over the content.

use async_compression::Level;
use async_compression::codecs::lzma::params::LzmaDecoderParams;
use async_compression::codecs::{Xz2Decoder, XzEncoder};

use super::engine::{StreamDecoder, StreamEncoder, StreamFramer};
use super::{Codec, CodecId, Decoder, Encoder, Framer};
use crate::error::{Error, Kind, Result};

/// The most memory that a stream may ask for, in bytes; level 9 needs 65 MiB.
const MEMORY: u64 = 128 << 20;

/// liblzma's flags `TELL_NO_CHECK` and `TELL_UNSUPPORTED_CHECK`: a stream whose content could not be checked
/// is an error.
const CHECKED: u32 = 0x01 | 0x02;

/// Xz at one level.
#[derive(Debug, Clone)]
pub(super) struct Xz {
    level: i32,
}

impl Xz {
    /// Xz at `level`.
    pub(super) fn new(level: i32) -> Self {
        Xz { level }
    }
}

impl Codec for Xz {
    fn id(&self) -> CodecId {
        CodecId::Xz
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        let engine = XzEncoder::new(Level::Precise(self.level));
        Ok(Box::new(StreamEncoder::new(self.id(), engine)))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        // Only the xz format: the automatic choice would take headerless `.lzma` data, which has no check.
        let params = LzmaDecoderParams::Stream { mem_limit: MEMORY, flags: CHECKED };
        let engine = Xz2Decoder::try_from(params)
            .map_err(|source| Error::new(Kind::Local, "preparing xz").because(source))?;
        Ok(Box::new(StreamDecoder::new(self.id(), engine)))
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        Ok(Box::new(StreamFramer::new(self.clone())))
    }
}
