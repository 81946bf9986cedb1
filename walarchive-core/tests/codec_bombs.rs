//! Streams that unpack to far more than they should: refused after what was asked for, in little memory.
//!
//! One test alone in its process, because it measures the memory of the process.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test's helpers fail the test.

use walarchive_core::codec::{Codec, CodecId, CodecSpec};
use walarchive_core::error::{Error, Kind, Result};

/// What the sink takes before it has enough, in bytes.
const LIMIT: usize = 1 << 20;

/// What a decoder may need: windows and buffers, in bytes. The bombs hold a gibibyte.
const MEMORY: usize = 24 << 20;

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

fn codec(spec: &str) -> std::sync::Arc<dyn Codec> {
    spec.parse::<CodecSpec>().unwrap().build()
}

/// A gibibyte of zeros in a few bytes.
fn bomb(codec: &dyn Codec) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let mut bomb = Vec::new();
    let mut encoder = codec.encoder().unwrap();
    (0..1024).for_each(|_| encoder.push(&zeros, &mut bomb).unwrap());
    encoder.finish(&mut bomb).unwrap();
    assert!(bomb.len() < 8 << 20, "a bomb is small");
    bomb
}

fn defused(codec: &dyn Codec, bomb: &[u8]) {
    let before = peak_memory();
    let mut taken = 0;
    let mut sink = |plain: &[u8]| -> Result<()> {
        taken += plain.len();
        if taken > LIMIT { Err(Error::damaged("enough")) } else { Ok(()) }
    };
    let mut decoder = codec.decoder().unwrap();
    let error = decoder.push(bomb, &mut sink).expect_err("a bomb");
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Damaged, "enough"));
    assert!(taken <= LIMIT + (256 << 10), "{taken} bytes were unpacked");
    let mut out = Vec::new();
    let error = codec.framer().unwrap().unpack(bomb, LIMIT, &mut out).expect_err("a bomb of a frame");
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(out.is_empty() && out.capacity() <= 4 * LIMIT);
    let more = peak_memory() - before;
    assert!(more < MEMORY, "{:?} took {} MiB", codec.id(), more >> 20);
}

#[test]
fn bombs_are_refused_in_little_memory() {
    for spec in ["zstd:1", "lz4:1", "gzip:1", "xz:0"] {
        let codec = codec(spec);
        defused(&*codec, &bomb(&*codec));
    }
    // Only raw blocks are written as `none`, and blocks of one repeated byte are read.
    defused(&*CodecId::None.reader(), &bomb(&*codec("zstd:1")));
}
