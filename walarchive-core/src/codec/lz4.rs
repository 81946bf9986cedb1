//! LZ4 in its frame format, with checksums of every block and of the content.

use async_compression::Level;
use async_compression::codecs::lz4::params::EncoderParams;
use async_compression::codecs::{Lz4Decoder, Lz4Encoder};

use super::engine::{StreamDecoder, StreamEncoder, StreamFramer};
use super::{Codec, CodecId, Decoder, Encoder, Framer};
use crate::error::Result;

/// LZ4 at one level.
#[derive(Debug, Clone)]
pub(super) struct Lz4 {
    level: i32,
}

impl Lz4 {
    /// LZ4 at `level`.
    pub(super) fn new(level: i32) -> Self {
        Lz4 { level }
    }
}

impl Codec for Lz4 {
    fn id(&self) -> CodecId {
        CodecId::Lz4
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        let params = EncoderParams::default()
            .level(Level::Precise(self.level))
            .block_checksum(true)
            .content_checksum(true);
        Ok(Box::new(StreamEncoder::new(self.id(), Lz4Encoder::new(params))))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(StreamDecoder::new(self.id(), Lz4Decoder::new())))
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        Ok(Box::new(StreamFramer::new(self.clone())))
    }
}
