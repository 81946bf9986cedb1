//! X25519 recipients and identities, and the keys that are derived for each object.

use std::fmt;
use std::str::FromStr;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::header::NONCE;
use super::stream::PayloadKey;
use crate::cipher::bech;
use crate::error::{Error, Kind, Result};

const RECIPIENT_HRP: &str = "age";
const IDENTITY_HRP: &str = "AGE-SECRET-KEY-";
const FILE_KEY: usize = 16;

/// A public key that objects can be sealed to: `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(PublicKey);

impl FromStr for Recipient {
    type Err = Error;

    /// Reads `age1…`. Anything else is [`Kind::Key`], and the message does not repeat the text, which might
    /// be a secret that was put in the wrong place.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::new(Kind::Key, format!("reading an age recipient: {what}"))
                .hint("give the X25519 recipient that age-keygen prints: age1 and 58 more characters")
        };
        if text.get(..IDENTITY_HRP.len()).is_some_and(|start| start.eq_ignore_ascii_case(IDENTITY_HRP)) {
            return Err(bad("this is an identity, which is secret, and not a recipient"));
        }
        if let Some(kind) = other_recipient(text) {
            return Err(bad(&format!("{kind} recipients are not supported")));
        }
        let bytes = bech::decode(text, RECIPIENT_HRP).map_err(|what| bad(&what))?;
        let key = PublicKey::from(*bytes);
        // A secret and a point of low order agree on zero, which would be no secret at all.
        if StaticSecret::from([1; 32]).diffie_hellman(&key).was_contributory() {
            Ok(Recipient(key))
        } else {
            Err(bad("it is a point of low order, to which nothing can be sealed"))
        }
    }
}

fn other_recipient(text: &str) -> Option<&'static str> {
    if text.starts_with("ssh-") {
        Some("ssh")
    } else if text.starts_with("age1pq1") {
        Some("hybrid post-quantum")
    } else if text.starts_with("age1") && text[4..].contains('1') {
        Some("age plugin")
    } else {
        None
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech::public(f, RECIPIENT_HRP, self.0.as_bytes())
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

/// A secret key that opens objects: `AGE-SECRET-KEY-1…`. It is wiped from memory when it is dropped.
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
}

impl Identity {
    /// A new identity from the operating system's random numbers.
    pub fn generate() -> Result<Self> {
        let bytes = random::<32>()?;
        Ok(Self::from_bytes(&bytes))
    }

    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey::from(&secret);
        Identity { secret, public }
    }

    /// The public key that belongs to this identity.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.public)
    }

    /// The identity as text, for a file that its owner alone can read.
    pub fn to_secret_string(&self) -> Zeroizing<String> {
        bech::secret(IDENTITY_HRP, self.secret.as_bytes())
    }

    /// The file key that `stanza` wraps, when it is addressed to this identity.
    pub(super) fn unwrap(&self, stanza: &Stanza) -> Result<Option<FileKey>> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(stanza.share));
        if !shared.was_contributory() {
            return Err(Error::damaged(
                "reading the header of an encrypted object: an X25519 share is a point of low order",
            ));
        }
        let aead = wrap_cipher(&shared, &stanza.share, &self.public)?;
        let mut key = Zeroizing::new([0; FILE_KEY]);
        let (body, tag) = stanza.body.split_at(FILE_KEY);
        key.copy_from_slice(body);
        let Ok(tag) = Tag::try_from(tag) else { return Ok(None) };
        match aead.decrypt_inout_detached(&Nonce::default(), b"", key.as_mut_slice().into(), &tag) {
            Ok(()) => Ok(Some(FileKey(key))),
            Err(_) => Ok(None),
        }
    }
}

impl FromStr for Identity {
    type Err = Error;

    /// Reads `AGE-SECRET-KEY-1…`. Anything else is [`Kind::Key`], with a message that keeps the secret.
    fn from_str(text: &str) -> Result<Self> {
        match bech::decode(text, IDENTITY_HRP) {
            Ok(bytes) => Ok(Self::from_bytes(&bytes)),
            Err(what) => Err(Error::new(Kind::Key, format!("reading an age identity: {what}"))
                .hint("give the line that age-keygen writes: AGE-SECRET-KEY-1 and 58 more characters")),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(secret of {})", self.recipient())
    }
}

/// The stanza of one X25519 recipient.
#[derive(Debug, Clone)]
pub(super) struct Stanza {
    /// The ephemeral public key.
    pub(super) share: [u8; 32],
    /// The wrapped file key and its tag.
    pub(super) body: [u8; 32],
}

/// The secret of one object, from which its other keys are derived.
pub(super) struct FileKey(Zeroizing<[u8; FILE_KEY]>);

impl FileKey {
    pub(super) fn generate() -> Result<Self> {
        random().map(FileKey)
    }

    /// Makes the stanza from which `recipient` learns this key.
    pub(super) fn wrap(&self, recipient: &Recipient) -> Result<Stanza> {
        let ephemeral = StaticSecret::from(*random::<32>()?);
        let share = PublicKey::from(&ephemeral).to_bytes();
        let shared = ephemeral.diffie_hellman(&recipient.0);
        if !shared.was_contributory() {
            return Err(Error::new(Kind::Key, format!("sealing to {recipient}: it is a point of low order")));
        }
        let mut body = [0; 32];
        let (key, tag) = body.split_at_mut(FILE_KEY);
        key.copy_from_slice(&self.0[..]);
        let made = wrap_cipher(&shared, &share, &recipient.0)?
            .encrypt_inout_detached(&Nonce::default(), b"", key.into())
            .map_err(|_| Error::bug("ChaCha20-Poly1305 refuses 16 bytes"))?;
        tag.copy_from_slice(&made);
        Ok(Stanza { share, body })
    }

    /// The key of the header's MAC.
    pub(super) fn mac_key(&self) -> Result<Zeroizing<[u8; 32]>> {
        derive(&self.0[..], b"", b"header")
    }

    /// A value that this key alone gives, and that does not give it away.
    pub(super) fn commitment(&self) -> Result<[u8; 32]> {
        derive(&self.0[..], b"", b"walarchive.dev/v1 commitment").map(|value| *value)
    }

    /// What tells whom this key was wrapped for to those alone who know it: 16 hex digits.
    pub(super) fn readers(&self, recipients: &[Recipient]) -> Result<String> {
        let value = derive(&self.0[..], names(recipients).as_bytes(), b"walarchive.dev/v1 readers")?;
        Ok(value.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The key of the payload that has this nonce.
    pub(super) fn payload_key(&self, nonce: &[u8; NONCE]) -> Result<PayloadKey> {
        let key = derive(&self.0[..], nonce, b"payload")?;
        PayloadKey::new(&key)
    }
}

/// All recipients in one text, whatever order they are in.
pub(super) fn names(recipients: &[Recipient]) -> String {
    let mut names: Vec<String> = recipients.iter().map(Recipient::to_string).collect();
    names.sort();
    names.dedup();
    names.join(" ")
}

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut bytes[..])
        .map_err(|error| Error::new(Kind::Local, "asking the system for random bytes").because(error))?;
    Ok(bytes)
}

fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(info, &mut key[..])
        .map_err(|_| Error::bug("HKDF-SHA-256 refuses to give 32 bytes"))?;
    Ok(key)
}

fn wrap_cipher(shared: &SharedSecret, share: &[u8; 32], recipient: &PublicKey) -> Result<ChaCha20Poly1305> {
    let mut salt = [0; 64];
    salt[..32].copy_from_slice(share);
    salt[32..].copy_from_slice(recipient.as_bytes());
    let key = derive(shared.as_bytes(), &salt, b"age-encryption.org/v1/X25519")?;
    ChaCha20Poly1305::new_from_slice(&key[..])
        .map_err(|_| Error::bug("ChaCha20-Poly1305 refuses a key of 32 bytes"))
}
