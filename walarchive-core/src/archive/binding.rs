//! What an object says about itself to anyone who can read it (FORMAT.md §3), and digests of content (§4).

use serde::{Deserialize, Serialize};

use crate::codec::CodecId;
use crate::error::{Error, Result};

const DIGEST_CONTEXT: &str = "walarchive.dev/v1 content digest";
const VERSION: u32 = 1;

/// What kind of thing an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// A WAL segment, history file or backup history file.
    Wal,
    /// Frames of file data.
    Pack,
    /// What a backup consists of.
    Manifest,
    /// A backup under way.
    Lease,
    /// A backup that retention leaves alone.
    Pin,
    /// What a drill found.
    Report,
}

/// The binding of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    v: u32,
    archive: String,
    key: String,
    kind: ObjectKind,
    codec: String,
    /// Bytes of the decoded content, when known beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain: Option<u64>,
    /// Bytes of the payload, when known beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// The digest of the decoded content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// BLAKE3 of the payload, in plain archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<String>,
    /// Whether the payload ends with its sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sum_at_end: Option<bool>,
    /// Who signed it, and with that the payload that `commitment` stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) writer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commitment: Option<String>,
}

impl Binding {
    /// The binding of the object `key`, with no facts about its content yet.
    pub fn new(archive: &str, key: &str, kind: ObjectKind, codec: CodecId) -> Binding {
        Binding {
            v: VERSION,
            archive: archive.to_owned(),
            key: key.to_owned(),
            kind,
            codec: codec.name().to_owned(),
            plain: None,
            stored: None,
            digest: None,
            sum: None,
            sum_at_end: None,
            writer: None,
            commitment: None,
        }
    }

    /// The stored form, before it is signed.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::bug("a binding cannot be written").because(error))
    }

    /// Reads a binding and holds it against what was asked for: another archive, key or kind is `Damaged`,
    /// because objects do not move.
    pub fn read(bytes: &[u8], archive: &str, key: &str, kind: ObjectKind) -> Result<Binding> {
        let binding: Binding = serde_json::from_slice(bytes)
            .map_err(|error| Error::damaged("the object's binding cannot be read").because(error).on(key))?;
        if binding.v != VERSION {
            return Err(Error::damaged(format!("the object's binding has version {}", binding.v))
                .on(key)
                .hint("a newer walarchive may know it"));
        }
        let found = (binding.archive.as_str(), binding.key.as_str(), binding.kind);
        if found != (archive, key, kind) {
            return Err(Error::damaged(format!(
                "the object stored as {key} was made as {} ({:?}) of archive {}: it was swapped or copied here",
                binding.key, binding.kind, binding.archive
            ))
            .on(key));
        }
        Ok(binding)
    }

    /// Whether it says who signed it.
    pub fn is_signed(&self) -> bool {
        self.writer.is_some()
    }

    /// What kind of object it is of.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// The codec of the content.
    pub fn codec(&self) -> Result<CodecId> {
        CodecId::from_name(&self.codec).ok_or_else(|| {
            Error::damaged(format!("the object names an unknown codec {:?}", self.codec)).on(&self.key)
        })
    }
}

/// Digests decoded content, keyed by the archive.
#[derive(Clone)]
pub struct ContentDigest(blake3::Hasher);

impl ContentDigest {
    /// A digest for content of `archive`.
    pub fn new(archive: &str) -> ContentDigest {
        ContentDigest(blake3::Hasher::new_keyed(&blake3::derive_key(DIGEST_CONTEXT, archive.as_bytes())))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest in hex.
    pub fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
