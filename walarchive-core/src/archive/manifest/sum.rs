//! The sum at the end of manifests that no cipher protects (FORMAT.md §7): decoders pass over some bits of what they decode.

use crate::codec::CodecId;
use crate::error::{Error, Result};

/// A skippable frame of zstd and lz4 begins with this, and the length of what follows.
const BEGINNING: [u8; 8] = [0x59, 0x2A, 0x4D, 0x18, 32, 0, 0, 0];
const LEN: usize = BEGINNING.len() + blake3::OUT_LEN;

/// The frame behind a payload.
pub(super) fn frame(payload: &blake3::Hasher) -> Vec<u8> {
    [&BEGINNING[..], payload.finalize().as_bytes()].concat()
}

/// Holds a payload, as it comes, against the sum at its end. Manifests of older versions have none.
#[derive(Default)]
pub struct SumCheck {
    before: blake3::Hasher,
    end: Vec<u8>,
    must: bool,
}

impl SumCheck {
    /// Whether decoders of a codec pass over such a frame.
    pub fn goes_with(codec: CodecId) -> bool {
        matches!(codec, CodecId::Zstd | CodecId::Lz4 | CodecId::None)
    }

    /// A payload that must end with its sum, or may be of an older version, which wrote none.
    pub fn new(must: bool) -> SumCheck {
        SumCheck { must, ..SumCheck::default() }
    }

    /// Takes the next bytes of the payload.
    pub fn push(&mut self, payload: &[u8]) {
        let beyond = (self.end.len() + payload.len()).saturating_sub(LEN);
        let of_end = beyond.min(self.end.len());
        self.before.update(&self.end[..of_end]);
        self.end.drain(..of_end);
        let (hashed, held) = payload.split_at(beyond - of_end);
        self.before.update(hashed);
        self.end.extend_from_slice(held);
    }

    /// Says that the payload ended.
    ///
    /// # Errors
    ///
    /// `Damaged` when it is not what was written.
    pub fn finish(self) -> Result<()> {
        let mut beginning = BEGINNING;
        if let Some(first) = self.end.first() {
            // All that differ in these four bits are frames that decoders pass over.
            beginning[0] = (beginning[0] & 0xF0) | (first & 0x0F);
        }
        let may_lack = !self.must && !self.end.starts_with(&beginning);
        if may_lack || self.end == frame(&self.before) {
            return Ok(());
        }
        Err(Error::damaged("the manifest does not match the sum at its end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &[u8], piece: usize) -> Result<()> {
        let mut check = SumCheck::default();
        payload.chunks(piece).for_each(|bytes| check.push(bytes));
        check.finish()
    }

    #[test]
    fn every_bit_counts_whatever_the_pieces() {
        let content: Vec<u8> = (0..200).collect();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&content);
        let whole = [content.clone(), frame(&hasher)].concat();
        for piece in [1, 7, 39, 40, 41, 100, 1000] {
            check(&whole, piece).unwrap();
            // Without a sum there is nothing to hold against; decoders find what else is cut off.
            check(&content, piece).unwrap();
            let mut must = SumCheck::new(true);
            content.chunks(piece).for_each(|bytes| must.push(bytes));
            assert!(must.finish().is_err(), "its sum was cut off");
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // Where the frame is no frame any more, decoders stumble over it.
                let is_frame = flipped[content.len()..][1..8] == BEGINNING[1..] && flipped[200] >> 4 == 5;
                assert_eq!(check(&flipped, piece).is_err(), is_frame, "bit {bit} in pieces of {piece}");
            }
        }
    }
}
