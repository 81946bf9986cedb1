//! WAL compressed by a codec of one's own: gzip as another library writes it. The objects say "gzip", so they are read by
//! everyone who reads that: `walarchive-fetch`, or `gzip -d` on what `age -d` gives.
//!
//! ```sh
//! cargo run --example own_codec -- file:///srv/archive pg_wal/000000010000000000000001
//! ```
//!
//! The archive is an existing one that is not encrypted.
#![allow(clippy::print_stdout)] // A program prints.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use walarchive_core::archive::Keys;
use walarchive_core::codec::{Codec, CodecId, Decoder, Encoder, Framer};
use walarchive_core::storage::{self, StoreOptions};
use walarchive_core::{Archive, Error, Result};

/// Gzip by `flate2`, as small as it can.
#[derive(Debug)]
struct OwnGzip;

fn failed(error: std::io::Error) -> Error {
    Error::bug("writing to memory failed").because(error)
}

impl Codec for OwnGzip {
    fn id(&self) -> CodecId {
        CodecId::Gzip
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(OwnEncoder(GzEncoder::new(Vec::new(), Compression::best()))))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        CodecId::Gzip.reader().decoder()
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        CodecId::Gzip.reader().framer()
    }
}

struct OwnEncoder(GzEncoder<Vec<u8>>);

impl Encoder for OwnEncoder {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.0.write_all(plain).map_err(failed)?;
        out.append(self.0.get_mut());
        Ok(())
    }

    fn finish(self: Box<Self>, out: &mut Vec<u8>) -> Result<()> {
        out.append(&mut self.0.finish().map_err(failed)?);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, segments @ ..] = args.as_slice() else {
        return Err(Error::usage("arguments are needed: ARCHIVE_URL SEGMENT…"));
    };
    let store = storage::open(url, &StoreOptions::default()).await?;
    let archive = Archive::open(store, Keys::default()).await?;
    let cluster = archive.cluster("main".parse()?).codec(Arc::new(OwnGzip));
    for segment in segments {
        let pushed = cluster.push(segment).await?;
        println!("{}: {} of {} bytes", pushed.key, pushed.stored.stored, pushed.stored.plain);
    }
    Ok(())
}
