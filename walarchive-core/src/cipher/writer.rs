//! Who writes: keys that sign what is stored, and open nothing.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::{bech, private};
use crate::error::{Error, Kind, Result};

const WRITER_HRP: &str = "wawriter";
const SECRET_HRP: &str = "WAWRITER-SECRET-KEY-";

/// Bytes of a signature.
pub const SIGNATURE: usize = Signature::BYTE_SIZE;

/// The public key of a writer, which proves what it signed: `wawriter1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Writer(VerifyingKey);

impl Writer {
    /// Whether this writer signed `message`.
    pub fn signed(&self, message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl FromStr for Writer {
    type Err = Error;

    /// Reads `wawriter1…`. Anything else is [`Kind::Key`], and the message does not repeat the text, which might be a secret that
    /// was put in the wrong place.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::new(Kind::Key, format!("reading a writer's public key: {what}"))
                .hint("give what `walarchive key show` prints of the writer's key: wawriter1 and 58 more characters")
        };
        let bytes = bech::decode(text, WRITER_HRP).map_err(|what| bad(&what))?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Writer(key)),
            _ => Err(bad("it is no point that anybody can sign for")),
        }
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech::public(f, WRITER_HRP, self.0.as_bytes())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({self})")
    }
}

/// The secret key of a writer: `WAWRITER-SECRET-KEY-1…`. It is wiped from memory when it is dropped.
pub struct WriterKey(SigningKey);

impl WriterKey {
    /// A new key from the operating system's random numbers.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut bytes[..])
            .map_err(|error| Error::new(Kind::Local, "asking the system for random bytes").because(error))?;
        Ok(WriterKey(SigningKey::from_bytes(&bytes)))
    }

    /// The public key that belongs to it.
    pub fn writer(&self) -> Writer {
        Writer(self.0.verifying_key())
    }

    /// The key as text, for a file that its owner alone can read.
    pub fn to_secret_string(&self) -> Zeroizing<String> {
        bech::secret(SECRET_HRP, self.0.as_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        self.0.sign(message).to_bytes()
    }
}

impl FromStr for WriterKey {
    type Err = Error;

    /// Reads `WAWRITER-SECRET-KEY-1…`. Anything else is [`Kind::Key`], with a message that keeps the secret.
    fn from_str(text: &str) -> Result<Self> {
        match bech::decode(text, SECRET_HRP) {
            Ok(bytes) => Ok(WriterKey(SigningKey::from_bytes(&bytes))),
            Err(what) => Err(Error::new(Kind::Key, format!("reading a writer's key: {what}"))
                .hint("give the line that `walarchive key generate --writer` makes: WAWRITER-SECRET-KEY-1 and 58 more characters")),
        }
    }
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey(secret of {})", self.writer())
    }
}

/// Reads public keys of writers, one a line or with white space between them; `#` begins a comment that ends with the line.
///
/// Anything else is [`Kind::Key`]; the message does not repeat it.
pub fn parse_writers(text: &str) -> Result<Vec<Writer>> {
    let mut writers: Vec<Writer> = Vec::new();
    for line in text.lines() {
        for word in line.split_whitespace().take_while(|word| !word.starts_with('#')) {
            let writer = word.parse()?;
            if !writers.contains(&writer) {
                writers.push(writer);
            }
        }
    }
    Ok(writers)
}

/// Reads the file of a writer's key, which only its owner can read: one `WAWRITER-SECRET-KEY-1…`, and comments.
///
/// [`Kind::Key`] when it cannot be read, others can read it, or it holds anything else.
pub fn read_writer_key_file(path: &Path) -> Result<WriterKey> {
    private::read(path, "make one with `walarchive key generate --writer -o FILE`")
        .and_then(|bytes| parse_key(&bytes))
        .map_err(|error| error.during("reading the writer's key").on(path.display()))
}

fn parse_key(bytes: &[u8]) -> Result<WriterKey> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Key, "it is not text, so it holds no writer's key"))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.parse(),
        (None, _) => Err(Error::new(Kind::Key, "there is no key in it")),
        (Some(_), Some(_)) => {
            Err(Error::new(Kind::Key, "there is more than one key in it, and a writer has one"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_text() {
        let key = WriterKey::generate().unwrap();
        let text = key.to_secret_string();
        assert!(text.starts_with("WAWRITER-SECRET-KEY-1"), "no prefix");
        let again: WriterKey = text.parse().unwrap();
        assert_eq!(again.writer(), key.writer());
        let public = key.writer().to_string();
        assert!(public.starts_with("wawriter1"), "{public}");
        assert_eq!(public.parse::<Writer>().unwrap(), key.writer());
        assert_eq!(parse_writers(&format!("# one\n{public} # it\n{public}\n")).unwrap(), [key.writer()]);
        let signature = key.sign(b"said");
        assert!(key.writer().signed(b"said", &signature));
        assert!(!key.writer().signed(b"sad", &signature));
        assert!(!WriterKey::generate().unwrap().writer().signed(b"said", &signature));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let secret = WriterKey::generate().unwrap().to_secret_string();
        for wrong in [&secret[..secret.len() - 1], "age1", "", "wawriter1", "x"] {
            for error in [wrong.parse::<Writer>().unwrap_err(), wrong.parse::<WriterKey>().unwrap_err()] {
                assert_eq!(error.kind(), Kind::Key);
                assert!(wrong.len() < 10 || !error.story().contains(wrong), "{error}");
            }
        }
        // Points of low order prove nothing of anybody.
        let mut text = String::new();
        fmt::write(&mut text, format_args!("{}", Shown([0; 32]))).unwrap();
        assert_eq!(text.parse::<Writer>().unwrap_err().kind(), Kind::Key);
    }

    struct Shown([u8; 32]);

    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            bech::public(f, WRITER_HRP, &self.0)
        }
    }
}
