//! Gzip: members with a CRC-32 and the length of their content.

use async_compression::Level;
use async_compression::codecs::{GzipDecoder, GzipEncoder};

use super::engine::{StreamDecoder, StreamEncoder, StreamFramer};
use super::{Codec, CodecId, Decoder, Encoder, Framer};
use crate::error::Result;

/// Gzip at one level.
#[derive(Debug, Clone)]
pub(super) struct Gzip {
    level: i32,
}

impl Gzip {
    /// Gzip at `level`.
    pub(super) fn new(level: i32) -> Self {
        Gzip { level }
    }
}

impl Codec for Gzip {
    fn id(&self) -> CodecId {
        CodecId::Gzip
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        let engine = GzipEncoder::new(Level::Precise(self.level).into());
        Ok(Box::new(StreamEncoder::new(self.id(), engine)))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(StreamDecoder::new(self.id(), GzipDecoder::new())))
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        Ok(Box::new(StreamFramer::new(self.clone())))
    }
}
