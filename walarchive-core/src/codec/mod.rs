//! Compression: factories that hand out one-use transforms.

mod engine;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(not(all(feature = "lz4", feature = "gzip", feature = "xz")))]
mod missing;
mod none;
#[cfg(feature = "xz")]
mod xz;
mod zstd;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A way to compress, with its level.
///
/// # Contract
///
/// * Streams and frames carry the codec's own integrity check where the format has one.
/// * The concatenation of finished streams (or frames) decodes to the concatenation of their contents, here
///   and with the format's own program.
/// * The same codec at any level decodes what it wrote at any other.
/// * Nothing here does input or output, blocks, or panics on any input.
pub trait Codec: Send + Sync + fmt::Debug {
    /// What the stored objects say about themselves.
    fn id(&self) -> CodecId;

    /// Starts a stream.
    fn encoder(&self) -> Result<Box<dyn Encoder>>;

    /// Starts reading a stream, or several that follow each other.
    fn decoder(&self) -> Result<Box<dyn Decoder>>;

    /// A reusable worker for many small independent frames.
    fn framer(&self) -> Result<Box<dyn Framer>>;
}

/// One stream being compressed.
pub trait Encoder: Send {
    /// Takes all of `plain`, appends what is ready to `out`.
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Ends the stream and appends the rest of it to `out`.
    fn finish(self: Box<Self>, out: &mut Vec<u8>) -> Result<()>;
}

/// One stream being read back.
pub trait Decoder: Send {
    /// Takes all of `stored` and gives the plain bytes to `sink`, in pieces of at most 256 KiB. An error of the
    /// sink ends the call: that is how callers stop a stream that unpacks to more than they asked for.
    fn push(&mut self, stored: &[u8], sink: PlainSink<'_>) -> Result<()>;

    /// Says that no more comes. Anything but the end of a stream here is `Damaged`, as is a stream without
    /// a single byte.
    fn finish(self: Box<Self>, sink: PlainSink<'_>) -> Result<()>;
}

/// Takes plain bytes in order.
pub type PlainSink<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<()> + Send);

/// Packs and unpacks frames, each a whole stream on its own.
pub trait Framer: Send {
    /// Appends the frame of `plain` to `out`.
    fn pack(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()>;

    /// Appends the `plain_len` bytes of `frame` to `out`; any other length, or a frame that does not hold,
    /// is `Damaged`.
    fn unpack(&mut self, frame: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()>;
}

/// The codecs that objects name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CodecId {
    /// Zstandard frames with checksums.
    Zstd,
    /// LZ4 frames with checksums.
    Lz4,
    /// Gzip members.
    Gzip,
    /// Xz streams with CRC-64.
    Xz,
    /// Zstandard frames of raw blocks, with checksums.
    None,
}

impl CodecId {
    /// All codecs.
    pub const ALL: [CodecId; 5] = [CodecId::Zstd, CodecId::Lz4, CodecId::Gzip, CodecId::Xz, CodecId::None];

    /// The name in settings and objects.
    pub fn name(self) -> &'static str {
        match self {
            CodecId::Zstd => "zstd",
            CodecId::Lz4 => "lz4",
            CodecId::Gzip => "gzip",
            CodecId::Xz => "xz",
            CodecId::None => "none",
        }
    }

    /// The codec of that name.
    pub fn from_name(name: &str) -> Option<CodecId> {
        CodecId::ALL.into_iter().find(|id| id.name() == name)
    }

    /// A codec that reads what was stored with this id, at any level.
    pub fn reader(self) -> Arc<dyn Codec> {
        CodecSpec { id: self, level: self.levels().1 }.build()
    }

    /// Lowest, default and highest level.
    pub fn levels(self) -> (i32, i32, i32) {
        match self {
            CodecId::Zstd => (1, 1, 19),
            CodecId::Lz4 => (1, 1, 12),
            CodecId::Gzip => (1, 6, 9),
            CodecId::Xz => (0, 6, 9),
            CodecId::None => (0, 0, 0),
        }
    }
}

/// A codec and its level, as settings write it: `zstd:1`, `lz4`, `gzip:6`, `xz:6`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecSpec {
    id: CodecId,
    level: i32,
}

impl CodecSpec {
    /// The codec.
    pub fn id(self) -> CodecId {
        self.id
    }

    /// The codec as an object.
    pub fn build(self) -> Arc<dyn Codec> {
        match self.id {
            CodecId::Zstd => Arc::new(zstd::Zstd::new(self.level)),
            #[cfg(feature = "lz4")]
            CodecId::Lz4 => Arc::new(lz4::Lz4::new(self.level)),
            #[cfg(feature = "gzip")]
            CodecId::Gzip => Arc::new(gzip::Gzip::new(self.level)),
            #[cfg(feature = "xz")]
            CodecId::Xz => Arc::new(xz::Xz::new(self.level)),
            CodecId::None => Arc::new(none::Plain),
            #[cfg(not(all(feature = "lz4", feature = "gzip", feature = "xz")))]
            id => Arc::new(missing::Missing(id)),
        }
    }
}

impl Default for CodecSpec {
    fn default() -> Self {
        CodecSpec { id: CodecId::Zstd, level: 1 }
    }
}

impl fmt::Display for CodecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            CodecId::None => f.write_str("none"),
            id => write!(f, "{}:{}", id.name(), self.level),
        }
    }
}

impl FromStr for CodecSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let unknown = || {
            Error::usage(format!("unknown codec {text:?}"))
                .hint("use zstd:1 … zstd:19, lz4:1 … lz4:12, gzip:1 … gzip:9, xz:0 … xz:9 or none")
        };
        let id = CodecId::from_name(name).ok_or_else(unknown)?;
        let (low, default, high) = id.levels();
        let level = match level {
            Some(level) => level.parse().map_err(|_| unknown())?,
            None => default,
        };
        if level < low || level > high || (id == CodecId::None && text != "none") {
            return Err(unknown());
        }
        Ok(CodecSpec { id, level })
    }
}
