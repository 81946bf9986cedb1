//! Plain bytes to a whole stored object in memory.

use bytes::Bytes;

use crate::cipher::{Cipher, Seal};
use crate::codec::{Codec, Encoder};
use crate::error::Result;

/// What is known of an object once all its content is there; its head can say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFacts {
    /// Bytes before compression.
    pub plain: u64,
    /// Bytes of the payload.
    pub stored: u64,
    /// BLAKE3 of the payload, when the cipher does not authenticate it.
    pub sum: Option<String>,
    /// [`Seal::commitment`]
    pub commitment: Option<[u8; 32]>,
}

/// Compresses and seals one object as its bytes come, and makes its head last.
///
/// Memory: the stored object, and about a chunk of the cipher.
pub struct Sealer {
    encoder: Box<dyn Encoder>,
    seal: Box<dyn Seal>,
    sum: Option<blake3::Hasher>,
    content: Vec<u8>,
    pieces: Vec<Bytes>,
    plain_len: u64,
    content_len: u64,
}

impl Sealer {
    /// Starts an object.
    pub fn new(codec: &dyn Codec, cipher: &dyn Cipher) -> Result<Sealer> {
        Ok(Sealer {
            encoder: codec.encoder()?,
            seal: cipher.seal()?,
            sum: (!cipher.encrypts()).then(blake3::Hasher::new),
            content: Vec::new(),
            pieces: vec![Bytes::new()],
            plain_len: 0,
            content_len: 0,
        })
    }

    /// Takes the next plain bytes.
    pub fn push(&mut self, plain: &[u8]) -> Result<()> {
        self.plain_len += plain.len() as u64;
        self.encoder.push(plain, &mut self.content)?;
        self.content_len += self.content.len() as u64;
        if let Some(sum) = &mut self.sum {
            sum.update(&self.content);
        }
        self.seal.push(&self.content, &mut self.pieces)?;
        self.content.clear();
        Ok(())
    }

    /// Ends the object: its parts in order, the head first. `binding` makes what the head says from the facts.
    pub fn finish(self, binding: impl FnOnce(SealedFacts) -> Result<Vec<u8>>) -> Result<Vec<Bytes>> {
        let Sealer { encoder, mut seal, mut sum, mut content, mut pieces, plain_len, content_len } = self;
        encoder.finish(&mut content)?;
        if let Some(sum) = &mut sum {
            sum.update(&content);
        }
        seal.push(&content, &mut pieces)?;
        let facts = SealedFacts {
            plain: plain_len,
            stored: seal.sealed_len(content_len + content.len() as u64),
            sum: sum.map(|sum| sum.finalize().to_hex().to_string()),
            commitment: seal.commitment()?,
        };
        pieces[0] = seal.head(&binding(facts)?)?;
        seal.finish(&mut pieces)?;
        Ok(pieces)
    }
}
