//! No encryption: the head is a skippable frame that zstd and lz4 pass over, the payload is untouched.

use std::ops::Range;

use bytes::Bytes;

use super::{Cipher, Head, MAX_HEAD, Open, OpenStream, Seal};
use crate::error::{Error, Result};

/// First bytes of every head: the magic number of a zstd skippable frame (0x184D2A57, little-endian).
pub(super) const MAGIC: [u8; 4] = 0x184D_2A57_u32.to_le_bytes();

/// Magic number and length of the frame.
const FRAME: usize = 8;

/// Length of the BLAKE3 digest that ends the head.
const DIGEST: usize = blake3::OUT_LEN;

/// Stores payloads as they are.
///
/// The head is a zstd skippable frame (magic 0x184D2A57, length as `u32`, both little-endian) whose body is
/// the binding and the 32 bytes of its BLAKE3 digest. `zstd -d` and `lz4 -d` pass over it. The digest finds
/// damage, not forgery: there is no key. The payload carries no digest here; its writer adds one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Cipher for Plain {
    fn encrypts(&self) -> bool {
        false
    }

    fn seal(&self) -> Result<Box<dyn Seal>> {
        Ok(Box::new(Passage))
    }

    fn read_head(&self, start: &[u8]) -> Result<Option<Head>> {
        let shown = start.len().min(MAGIC.len());
        if start[..shown] != MAGIC[..shown] {
            return Err(not_ours(start));
        }
        let Some(field) = start.get(MAGIC.len()..FRAME) else { return Ok(None) };
        let body = field.iter().rev().fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
        if !(DIGEST..=MAX_HEAD - FRAME).contains(&body) {
            return Err(Error::damaged(format!(
                "reading the head of an unencrypted object: its body cannot be {body} bytes long"
            )));
        }
        let Some(body) = start.get(FRAME..FRAME + body) else { return Ok(None) };
        let (binding, digest) = body.split_at(body.len() - DIGEST);
        if blake3::hash(binding).as_bytes() != digest {
            return Err(Error::damaged(
                "reading the head of an unencrypted object: its digest does not match its binding",
            ));
        }
        Ok(Some(Head { len: FRAME + body.len(), binding: Some(binding.to_vec()), payload: None }))
    }

    fn open(&self, head: &[u8]) -> Result<Box<dyn Open>> {
        match self.read_head(head)? {
            Some(found) if found.len == head.len() => Ok(Box::new(Passage)),
            _ => Err(Error::damaged(format!(
                "opening an unencrypted object: its head does not end after {} bytes",
                head.len()
            ))),
        }
    }
}

fn not_ours(start: &[u8]) -> Error {
    if start.starts_with(super::age::PREFIX) {
        return Error::damaged("reading the head of an object: it is encrypted, but this archive is not")
            .hint("check that the archive's description and the object belong together");
    }
    Error::damaged("reading the head of an object: it does not begin as an unencrypted object of walarchive")
}

/// The way through for payloads, in both directions.
struct Passage;

impl Seal for Passage {
    fn head(&self, binding: &[u8]) -> Result<Bytes> {
        let body = binding.len().saturating_add(DIGEST);
        let field = match u32::try_from(body) {
            Ok(field) if body <= MAX_HEAD - FRAME => field,
            _ => return Err(super::binding_too_long(binding.len())),
        };
        let mut head = Vec::with_capacity(FRAME + body);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&field.to_le_bytes());
        head.extend_from_slice(binding);
        head.extend_from_slice(blake3::hash(binding).as_bytes());
        Ok(head.into())
    }

    fn sealed_len(&self, plain: u64) -> u64 {
        plain
    }

    fn push(&mut self, plain: &[u8], out: &mut Vec<Bytes>) -> Result<()> {
        if !plain.is_empty() {
            out.push(Bytes::copy_from_slice(plain));
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _out: &mut Vec<Bytes>) -> Result<()> {
        Ok(())
    }
}

impl Open for Passage {
    fn plain_len(&self, sealed: u64) -> Result<u64> {
        Ok(sealed)
    }

    fn sealed_range(&self, plain: Range<u64>, _sealed_len: u64) -> Range<u64> {
        plain
    }

    fn open_range(&self, plain: Range<u64>, sealed: &[u8], sealed_len: u64) -> Result<Bytes> {
        super::check_range(&plain, sealed_len)?;
        super::check_stored(&plain, sealed)?;
        Ok(Bytes::copy_from_slice(sealed))
    }

    fn stream(&self) -> Box<dyn OpenStream> {
        Box::new(Passage)
    }
}

impl OpenStream for Passage {
    fn push(&mut self, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(sealed);
        Ok(())
    }

    fn finish(self: Box<Self>, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}
