//! Payload bytes back to plain ones.

use crate::cipher::{Open, OpenStream};
use crate::codec::{Codec, Decoder, PlainSink};
use crate::error::{Error, Result};

/// Opens and unpacks one object's payload as it comes, and never gives out more than `limit` bytes.
pub struct Opener {
    cipher: Box<dyn OpenStream>,
    decoder: Box<dyn Decoder>,
    content: Vec<u8>,
    left: u64,
}

impl Opener {
    /// Starts at the beginning of a payload. More than `limit` plain bytes are `Damaged`.
    pub fn new(open: &dyn Open, codec: &dyn Codec, limit: u64) -> Result<Opener> {
        Ok(Opener { cipher: open.stream(), decoder: codec.decoder()?, content: Vec::new(), left: limit })
    }

    /// Takes the next payload bytes.
    pub fn push(&mut self, sealed: &[u8], sink: PlainSink<'_>) -> Result<()> {
        // Slices bound what the cipher holds back and gives out at once.
        for slice in sealed.chunks(256 * 1024) {
            self.cipher.push(slice, &mut self.content)?;
            self.decoder.push(&self.content, &mut limited(&mut self.left, sink))?;
            self.content.clear();
        }
        Ok(())
    }

    /// Says that the payload ended.
    pub fn finish(mut self, sink: PlainSink<'_>) -> Result<()> {
        self.cipher.finish(&mut self.content)?;
        let mut sink = limited(&mut self.left, sink);
        self.decoder.push(&self.content, &mut sink)?;
        self.decoder.finish(&mut sink)
    }
}

fn limited<'a>(left: &'a mut u64, sink: PlainSink<'a>) -> impl FnMut(&[u8]) -> Result<()> + Send + 'a {
    move |plain| {
        *left = left
            .checked_sub(plain.len() as u64)
            .ok_or_else(|| Error::damaged("the object unpacks to more than it may hold"))?;
        sink(plain)
    }
}
