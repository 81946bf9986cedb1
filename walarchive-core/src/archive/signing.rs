//! Who wrote what is stored (FORMAT.md §3): writers sign bindings, and readers refuse what nobody signed whom they trust.

use std::sync::Arc;

use super::Binding;
use crate::cipher::writer::{SIGNATURE, Writer, WriterKey};
use crate::error::{Error, Result};

const BINDING: &[u8] = b"walarchive.dev/v1 binding\n";
const MANIFEST: &[u8] = b"walarchive.dev/v1 manifest\n";

/// What stands around the signature at a binding's end.
const BEFORE: &[u8] = br#","sig":""#;
const BEHIND: &[u8] = br#""}"#;

/// The writer of this host, and those that it believes.
#[derive(Debug, Default)]
pub(super) struct Writers {
    pub(super) key: Option<Arc<WriterKey>>,
    pub(super) trusted: Vec<Writer>,
}

/// A signature, and whose it is, as they are stored.
pub(super) struct Signed {
    pub(super) writer: String,
    pub(super) sig: String,
}

impl Writers {
    pub(super) fn new(key: Option<WriterKey>, trusted: Vec<Writer>) -> Writers {
        Writers { key: key.map(Arc::new), trusted }
    }

    /// Whether what no trusted writer signed is refused.
    pub(super) fn demand(&self) -> bool {
        !self.trusted.is_empty()
    }

    /// The stored form of a binding, signed if this host has a key to sign with.
    pub(super) fn write(&self, mut binding: Binding, commitment: Option<[u8; 32]>) -> Result<Vec<u8>> {
        self.may_write()?;
        binding.writer = self.key.as_ref().map(|key| key.writer().to_string());
        binding.commitment = commitment.filter(|_| self.key.is_some()).map(|value| hex(&value));
        let mut bytes = binding.to_bytes()?;
        if let Some(key) = &self.key {
            let signature = key.sign(&[BINDING, &bytes].concat());
            bytes.pop();
            bytes.extend_from_slice(BEFORE);
            bytes.extend_from_slice(hex(&signature).as_bytes());
            bytes.extend_from_slice(BEHIND);
        }
        Ok(bytes)
    }

    /// Refuses to store what nobody would believe who trusts the same writers.
    pub(super) fn may_write(&self) -> Result<()> {
        let refusal = match &self.key {
            _ if !self.demand() => return Ok(()),
            Some(key) if self.trusted.contains(&key.writer()) => return Ok(()),
            Some(key) => Error::usage(format!(
                "what this host stores would be refused by itself: its key is that of {}, who is not among the trusted writers",
                key.writer()
            ))
            .hint("add it to encryption.trusted_writers, here and on all hosts that read"),
            None => Error::usage("what this host stores would be refused by itself: it trusts certain writers alone, and signs nothing")
                .hint("encryption.trusted_writers is set: set encryption.writer_key_file, too ('walarchive key generate --writer' makes a key)"),
        };
        Err(refusal)
    }

    /// Refuses a binding that no trusted writer signed, if there are any.
    pub(super) fn check(&self, binding: &Binding, bytes: &[u8]) -> Result<()> {
        if !self.demand() {
            return Ok(());
        }
        let (signed, signature) = split(bytes).ok_or_else(|| unsigned("the object is not signed"))?;
        self.verify(binding.writer.as_deref(), &[BINDING, &signed].concat(), signature)
    }

    /// Signs a manifest by the digest of its lines: for archives where nothing else ties its content to its head.
    pub(super) fn sign_manifest(&self, archive: &str, key: &str, digest: &str) -> Option<Signed> {
        let signer = self.key.as_ref()?;
        let sig = hex(&signer.sign(&manifest(archive, key, digest)));
        Some(Signed { writer: signer.writer().to_string(), sig })
    }

    /// Refuses a manifest whose last line no trusted writer signed, if there are any.
    pub(super) fn check_manifest(
        &self,
        archive: &str,
        key: &str,
        digest: &str,
        signed: Option<Signed>,
    ) -> Result<()> {
        if !self.demand() {
            return Ok(());
        }
        let Signed { writer, sig } = signed.ok_or_else(|| unsigned("the manifest's end is not signed"))?;
        self.verify(Some(&writer), &manifest(archive, key, digest), sig.as_bytes())
    }

    fn verify(&self, writer: Option<&str>, message: &[u8], signature: &[u8]) -> Result<()> {
        let writer: Writer = writer
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| unsigned("the object does not say who signed it"))?;
        if !self.trusted.contains(&writer) {
            return Err(Error::damaged(format!(
                "the object was signed by {writer}, who is not trusted here"
            ))
            .hint(
                "if that is a writer of yours, encryption.trusted_writers lacks it; else this was planted",
            ));
        }
        match unhex(signature) {
            Some(signature) if writer.signed(message, &signature) => Ok(()),
            _ => Err(Error::damaged(format!("the object's signature is not one of {writer}"))),
        }
    }
}

fn unsigned(what: &str) -> Error {
    Error::damaged(what).hint(
        "encryption.trusted_writers says whom to believe: either this was planted, or it is from before writers signed; what you know to be \
         yours, 'walarchive key rotate --sign-unsigned' signs",
    )
}

fn manifest(archive: &str, key: &str, digest: &str) -> Vec<u8> {
    [MANIFEST, archive.as_bytes(), b"\n", key.as_bytes(), b"\n", digest.as_bytes()].concat()
}

/// What was signed of a binding, and the signature, in hex.
fn split(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let rest = bytes.strip_suffix(BEHIND)?;
    let (rest, signature) = rest.split_at_checked(rest.len().checked_sub(2 * SIGNATURE)?)?;
    let mut signed = rest.strip_suffix(BEFORE)?.to_vec();
    signed.push(b'}');
    Some((signed, signature))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &[u8]) -> Option<[u8; SIGNATURE]> {
    let mut bytes = [0; SIGNATURE];
    if text.len() != 2 * SIGNATURE || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ObjectKind;
    use crate::codec::CodecId;
    use crate::error::Kind;

    fn binding() -> Binding {
        Binding::new("0123", "main/1/wal/x", ObjectKind::Wal, CodecId::Zstd)
    }

    fn reader(trusted: &WriterKey) -> Writers {
        Writers::new(None, vec![trusted.writer()])
    }

    fn check(readers: &Writers, bytes: &[u8]) -> Result<()> {
        let binding = Binding::read(bytes, "0123", "main/1/wal/x", ObjectKind::Wal)?;
        readers.check(&binding, bytes)
    }

    #[test]
    fn a_signed_binding_holds_and_no_byte_of_it_can_be_changed() {
        let key = WriterKey::generate().unwrap();
        let readers = reader(&key);
        let bytes = Writers::new(Some(key), Vec::new()).write(binding(), Some([7; 32])).unwrap();
        check(&readers, &bytes).unwrap();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[place] ^= 1 << bit;
                // Upper case digits of a signature are the same signature.
                let same = other.eq_ignore_ascii_case(&bytes) && place >= bytes.len() - 2 * SIGNATURE - 2;
                assert!(same || check(&readers, &other).is_err(), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_nobody_signed_who_is_trusted_is_refused() {
        let key = WriterKey::generate().unwrap();
        let other = Writers::new(Some(WriterKey::generate().unwrap()), Vec::new());
        for bytes in [binding().to_bytes().unwrap(), other.write(binding(), None).unwrap()] {
            assert_eq!(check(&reader(&key), &bytes).unwrap_err().kind(), Kind::Damaged);
            check(&Writers::default(), &bytes).unwrap();
        }
    }

    #[test]
    fn a_host_that_trusts_certain_writers_does_not_write_unsigned() {
        let key = WriterKey::generate().unwrap();
        assert_eq!(reader(&key).write(binding(), None).unwrap_err().kind(), Kind::Usage);
        let other = Writers::new(Some(WriterKey::generate().unwrap()), vec![key.writer()]);
        assert_eq!(other.write(binding(), None).unwrap_err().kind(), Kind::Usage);
        let trusted = vec![key.writer()];
        let own = Writers::new(Some(key), trusted);
        check(&own, &own.write(binding(), None).unwrap()).unwrap();
    }

    #[test]
    fn the_end_of_a_manifest_is_signed_with_its_place_and_digest() {
        let key = WriterKey::generate().unwrap();
        let readers = reader(&key);
        let writers = Writers::new(Some(key), Vec::new());
        let signed = || writers.sign_manifest("0123", "key", "abcd");
        readers.check_manifest("0123", "key", "abcd", signed()).unwrap();
        for (archive, key, digest) in
            [("0124", "key", "abcd"), ("0123", "kez", "abcd"), ("0123", "key", "abce")]
        {
            assert!(readers.check_manifest(archive, key, digest, signed()).is_err());
        }
        assert!(readers.check_manifest("0123", "key", "abcd", None).is_err());
    }
}
