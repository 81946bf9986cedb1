//! The age v1 file format (<https://age-encryption.org/v1>), with X25519 keys.
//!
//! An object is an ordinary age file: `age -d` opens it. Its head is age's header and the 16-byte nonce that
//! begins age's payload; so the payload, as the parent module has it, is whole chunks alone. The binding is
//! the body of an extra stanza, `-> walarchive.dev/v1`, that the header's MAC covers and other programs
//! ignore. Any reader sees the binding, and only an identity proves it.

mod files;
mod header;
mod keys;
mod open;
mod seal;
mod stream;

use bytes::Bytes;
pub use files::{parse_identities, parse_recipients, read_identity_file};
use header::Header;
use keys::FileKey;
pub use keys::{Identity, Recipient};

use super::{Cipher, Head, Open, Seal};
use crate::error::{Error, Kind, Result};

/// How every age file of any version begins.
pub(super) const PREFIX: &[u8] = b"age-encryption.org/";

/// Seals to any number of recipients, and opens with any of the identities.
///
/// A writer needs recipients alone, a reader identities alone.
#[derive(Debug)]
pub struct AgeCipher {
    recipients: Vec<Recipient>,
    identities: Vec<Identity>,
    threads: usize,
}

impl AgeCipher {
    /// A cipher that works on the calling thread alone.
    pub fn new(recipients: Vec<Recipient>, identities: Vec<Identity>) -> AgeCipher {
        AgeCipher { recipients, identities, threads: 1 }
    }

    /// Seals and opens on up to `n` threads whenever at least four chunks (256 KiB) are at hand; with more
    /// than one, a sealed object keeps up to eight chunks per thread in memory until they are ready.
    #[must_use]
    pub fn with_threads(mut self, n: usize) -> Self {
        self.threads = n.max(1);
        self
    }

    fn no_match(&self, header: &Header) -> Error {
        if self.identities.is_empty() {
            return Error::new(Kind::Key, "opening an encrypted object: no identity is configured")
                .hint("reading needs the secret key: name its file in encryption.identity_file or WALARCHIVE_IDENTITY_FILE");
        }
        let message = format!(
            "opening an encrypted object: none of the {} configured identities opens this object, which is \
             sealed to {} X25519 recipients",
            self.identities.len(),
            header.stanzas.len()
        );
        Error::new(Kind::Key, message)
            .hint("use an identity of one of the recipients that were configured when the object was written")
    }
}

impl Cipher for AgeCipher {
    fn encrypts(&self) -> bool {
        true
    }

    fn readers(&self) -> String {
        keys::names(&self.recipients)
    }

    fn can_open(&self) -> bool {
        !self.identities.is_empty()
    }

    fn seal(&self) -> Result<Box<dyn Seal>> {
        self.need_recipients()?;
        Ok(Box::new(seal::AgeSeal::new(&self.recipients, self.threads)?))
    }

    fn read_head(&self, start: &[u8]) -> Result<Option<Head>> {
        let head =
            |header: Header| Head { len: header.len, binding: header.binding, payload: Some(header.nonce) };
        Ok(Header::parse(start)?.map(head))
    }

    fn is_for_readers(&self, head: &[u8]) -> Result<bool> {
        let (header, file_key) = self.unlock(head)?;
        Ok(header.readers.as_deref() == Some(file_key.readers(&self.recipients)?.as_bytes()))
    }

    fn rewrap(&self, head: &[u8], binding: &[u8]) -> Result<Bytes> {
        self.need_recipients()?;
        let (header, file_key) = self.unlock(head)?;
        header::write(
            &Header::addressed(&file_key, &self.recipients)?,
            binding,
            &file_key,
            &header.nonce,
            header.len,
        )
        .map(Bytes::from)
    }

    fn open(&self, head: &[u8]) -> Result<Box<dyn Open>> {
        let (header, file_key) = self.unlock(head)?;
        let key = file_key.payload_key(&header.nonce)?;
        Ok(Box::new(open::AgeOpen::new(key, file_key.commitment()?, self.threads)))
    }
}

impl AgeCipher {
    fn need_recipients(&self) -> Result<()> {
        match self.recipients.is_empty() {
            false => Ok(()),
            true => Err(Error::usage("the archive is encrypted, and no recipient is configured")
                .hint("name at least one (age1…) in WALARCHIVE_RECIPIENTS or encryption.recipients")),
        }
    }

    /// A proven header, and the key that it wraps for one of the identities.
    fn unlock(&self, head: &[u8]) -> Result<(Header, FileKey)> {
        let header = match Header::parse(head)? {
            Some(header) if header.len == head.len() => header,
            _ => {
                return Err(Error::damaged(format!(
                    "opening an encrypted object: its head does not end after {} bytes",
                    head.len()
                )));
            }
        };
        for identity in &self.identities {
            for stanza in &header.stanzas {
                if let Some(file_key) = identity.unwrap(stanza)? {
                    header.verify(&file_key)?;
                    return Ok((header, file_key));
                }
            }
        }
        Err(self.no_match(&header))
    }
}
