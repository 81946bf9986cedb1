//! Made-up WAL, for machines without PostgreSQL.

use std::fs;
use std::path::Path;

use crate::SEGMENT;

/// Segments that a push takes for real (their first page has a valid header), with about as much to compress as
/// real ones, and pages that are cut from them.
pub(crate) fn make(dir: &Path, segments: usize) {
    fs::create_dir_all(dir).expect("make the directory of the bench data");
    let mut content = Vec::new();
    for number in 1..=segments as u64 {
        content = records(number);
        content[..40].copy_from_slice(&header(number));
        fs::write(dir.join(format!("0000000100000000{number:08X}")), &content).expect("write a segment");
    }
    fs::write(dir.join("pages"), content).expect("write pages");
}

/// The long header of a segment's first page, as PostgreSQL 15 writes it.
fn header(number: u64) -> [u8; 40] {
    let mut header = [0; 40];
    header[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
    header[2..4].copy_from_slice(&2_u16.to_le_bytes());
    header[4..8].copy_from_slice(&1_u32.to_le_bytes());
    header[8..16].copy_from_slice(&(number * SEGMENT as u64).to_le_bytes());
    header[24..32].copy_from_slice(&7_000_000_000_000_000_001_u64.to_le_bytes());
    header[32..36].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
    header[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    header
}

/// Something like records: fields that repeat, counters, and a few bytes of noise.
fn records(seed: u64) -> Vec<u8> {
    let mut content = Vec::with_capacity(SEGMENT + 256);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while content.len() < SEGMENT {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let noise = state.to_le_bytes();
        content.extend_from_slice(&[0x42, 0, 0, 0, noise[0], 3, 0, 0, 0, 10, 0x20, 0xFF]);
        content.extend_from_slice(&(content.len() as u64).to_le_bytes());
        content.extend_from_slice(&noise);
        content.resize(content.len() + usize::from(noise[1] % 64), b' ');
    }
    content.truncate(SEGMENT);
    content
}
