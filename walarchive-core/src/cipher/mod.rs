//! Encryption: what is written around the compressed bytes of an object.
//!
//! A stored object is a *head* followed by a *payload*. The head carries the object's *binding*: opaque
//! bytes, readable without any key, that say which object this is. Heads and payloads are made apart, so
//! that a payload can be written before what its head says (a digest) is known.

pub mod age;
mod bech;
mod none;
mod private;
pub mod writer;

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;
pub use none::Plain;

use crate::error::{Error, Result};

/// No head is longer than this (bytes), so that a reader of hostile objects knows when to stop looking.
pub const MAX_HEAD: usize = 1 << 20;

/// A way to seal objects.
///
/// # Contract
///
/// * What was sealed opens to the same bytes; any change, cut or extension of the payload is
///   [`Damaged`](crate::error::Kind::Damaged) and never yields a byte that was not sealed at that place.
///   (For [`Plain`], which has no key, the layers above carry digests.)
/// * A head that was changed in any bit does not open.
/// * Two seals of the same bytes share nothing that tells so, if the cipher is one that hides content.
/// * Nothing here does input or output, or panics on any input.
pub trait Cipher: Send + Sync + Debug {
    /// Whether sealed objects hide their content.
    fn encrypts(&self) -> bool;

    /// Who can open what is sealed from now on: a text that changes when they do. What was sealed for others is not
    /// taken over into new backups.
    fn readers(&self) -> String {
        String::new()
    }

    /// Whether there is anything to open objects with.
    fn can_open(&self) -> bool {
        true
    }

    /// Whether those who can open an object with this head are those of [`readers`](Cipher::readers). Needs what
    /// [`open`](Cipher::open) needs.
    fn is_for_readers(&self, head: &[u8]) -> Result<bool> {
        let _ = head;
        Ok(true)
    }

    /// A head for the payload that `head` belongs to, which those of [`readers`](Cipher::readers) can open, carrying `binding`: as long
    /// as `head` is, where that can be. Needs what [`open`](Cipher::open) needs.
    fn rewrap(&self, head: &[u8], binding: &[u8]) -> Result<Bytes> {
        let _ = (head, binding);
        Err(Error::usage("what this cipher seals is for nobody in particular"))
    }

    /// Starts one object.
    fn seal(&self) -> Result<Box<dyn Seal>>;

    /// Reads a head from the first bytes of an object, without any key. `None` when `start` ends before the
    /// head does; `Damaged` when it cannot be a head of this cipher.
    fn read_head(&self, start: &[u8]) -> Result<Option<Head>>;

    /// Opens an object by its whole head: needs a secret, if the cipher has any. No matching secret is
    /// [`Key`](crate::error::Kind::Key).
    fn open(&self, head: &[u8]) -> Result<Box<dyn Open>>;
}

/// What a head says without any key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Length of the head in bytes: the payload starts there.
    pub len: usize,
    /// The binding; `None` when the object carries none (it was not made by walarchive).
    pub binding: Option<Vec<u8>>,
    /// What heads of the same payload have in common, and no others; `None` where nothing tells that.
    pub payload: Option<[u8; 16]>,
}

/// One object being sealed.
pub trait Seal: Send {
    /// The head for this object, carrying `binding`. May be asked for at any time before `finish`.
    fn head(&self, binding: &[u8]) -> Result<Bytes>;

    /// The length of the whole payload when its content is `plain` bytes long.
    fn sealed_len(&self, plain: u64) -> u64;

    /// A value that only who knows the secret of this object's payload can give another payload for, and that anyone may see:
    /// who signs it has signed the payload. `None` where there is no such secret.
    fn commitment(&self) -> Result<Option<[u8; 32]>> {
        Ok(None)
    }

    /// Takes payload bytes and appends the sealed pieces that are ready to `out`.
    fn push(&mut self, plain: &[u8], out: &mut Vec<Bytes>) -> Result<()>;

    /// Ends the payload and appends the rest of it to `out`.
    fn finish(self: Box<Self>, out: &mut Vec<Bytes>) -> Result<()>;
}

/// An object whose head was opened.
pub trait Open: Send + Sync {
    /// The value that [`Seal::commitment`] gave when the object was sealed.
    fn commitment(&self) -> Option<[u8; 32]> {
        None
    }

    /// How long the payload's content is when the stored payload is `sealed` bytes long; `Damaged` when no
    /// payload can have that length.
    fn plain_len(&self, sealed: u64) -> Result<u64>;

    /// Which bytes of the stored payload are needed to read `plain` of its content (`plain.end` at most
    /// [`plain_len`](Open::plain_len)).
    fn sealed_range(&self, plain: Range<u64>, sealed_len: u64) -> Range<u64>;

    /// The content's bytes `plain`, from exactly the stored bytes that [`sealed_range`](Open::sealed_range)
    /// named.
    fn open_range(&self, plain: Range<u64>, sealed: &[u8], sealed_len: u64) -> Result<Bytes>;

    /// Starts reading the whole payload in order.
    fn stream(&self) -> Box<dyn OpenStream>;
}

/// A payload being opened from its start.
pub trait OpenStream: Send {
    /// Takes stored bytes and appends the content that is proven to `out`.
    fn push(&mut self, sealed: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Says that no more comes; a payload that does not end here is `Damaged`.
    fn finish(self: Box<Self>, out: &mut Vec<u8>) -> Result<()>;
}

fn binding_too_long(len: usize) -> Error {
    Error::bug(format!("making the head of an object: a binding of {len} bytes makes it longer than 1 MiB"))
}

/// Refuses a range that is not inside content of `content_len` bytes.
fn check_range(plain: &Range<u64>, content_len: u64) -> Result<()> {
    if plain.start <= plain.end && plain.end <= content_len {
        return Ok(());
    }
    Err(Error::bug(format!(
        "reading bytes {} to {} of an object whose content is {content_len} bytes long",
        plain.start, plain.end
    )))
}

/// Refuses stored bytes that are not as many as the range that was asked for.
fn check_stored(wanted: &Range<u64>, sealed: &[u8]) -> Result<()> {
    let wanted = wanted.end.saturating_sub(wanted.start);
    if u64::try_from(sealed.len()).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    Err(Error::damaged(format!(
        "reading a range of an object: the store gave {} bytes where {wanted} are needed",
        sealed.len()
    )))
}
