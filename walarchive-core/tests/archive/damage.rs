//! Stored bytes that changed: every flip and every cut is found, and nothing wrong is ever given out.

use std::sync::Arc;

use bytes::Bytes;
use walarchive_core::error::{Kind, Result};

use crate::recorder::Trouble;
use crate::support::*;

/// Lets the store give out `bytes` instead of what is stored.
fn gives(bench: &Bench, bytes: impl Into<Bytes>) {
    let bytes = bytes.into();
    bench.store.set(Trouble::Lies(Box::new(move |_, _| bytes.clone())));
}

fn is_damage(result: Result<Vec<u8>>, may_be_key: bool, what: &str) {
    let Err(error) = result else { panic!("{what}: not noticed") };
    let fits = error.kind() == Kind::Damaged || (may_be_key && error.kind() == Kind::Key);
    assert!(fits, "{what}: {error:?}");
    assert!(error.object().is_some() && error.story().contains("fetching"), "{what}: {error:?}");
}

/// Where the recipient's stanza lies in an age header; nothing in a plain object.
fn recipient_stanza(object: &[u8]) -> std::ops::Range<usize> {
    let find = |mark: &[u8]| object.windows(mark.len()).position(|at| at == mark);
    match (find(b"-> X25519"), find(b"-> walarchive.dev/v1")) {
        (Some(start), Some(end)) => start..end,
        _ => 0..0,
    }
}

/// Every bit for the default codec, one bit of every byte for the others.
async fn every_flip_is_found(bench: &Bench, key: &str, spec: &str) {
    let bits = |place: usize| if spec == CODECS[0] { 0..8 } else { place % 8..place % 8 + 1 };
    let object = bench.stored(key).await;
    let stanza = recipient_stanza(&object);
    assert_eq!(stanza.is_empty(), !bench.archive.info().encrypted());
    for place in 0..object.len() {
        for bit in bits(place) {
            let mut changed = object.to_vec();
            changed[place] ^= 1 << bit;
            gives(bench, changed);
            let what = format!("{spec}: bit {bit} of byte {place} of {} flipped", object.len());
            is_damage(bench.fetch(HISTORY).await, stanza.contains(&place), &what);
        }
    }
}

async fn every_cut_is_found(bench: &Bench, key: &str, spec: &str) {
    let object = bench.stored(key).await;
    for len in 0..object.len() {
        gives(bench, object.slice(..len));
        is_damage(bench.fetch(HISTORY).await, false, &format!("{spec}: cut at {len} of {}", object.len()));
    }
    for more in [&b"\0"[..], b"x", &object[object.len() - 1..], &object] {
        gives(bench, [&object[..], more].concat());
        is_damage(bench.fetch(HISTORY).await, false, &format!("{spec}: {} bytes more", more.len()));
    }
}

/// Every byte and every length of one small object.
fn small_object(encrypted: bool, spec: &'static str) {
    run(async {
        let bench = Bench::in_memory(encrypted).await;
        let key = bench.push(spec, HISTORY, HISTORY_TEXT).await.unwrap().key;
        every_flip_is_found(&bench, &key, spec).await;
        every_cut_is_found(&bench, &key, spec).await;
        bench.store.set(Trouble::None);
        assert_eq!(bench.fetch(HISTORY).await.unwrap(), HISTORY_TEXT);
    });
}

#[test]
fn every_change_of_a_small_plain_object_is_found() {
    CODECS.into_iter().for_each(|spec| small_object(false, spec));
}

#[test]
fn every_change_of_a_small_encrypted_object_is_found() {
    CODECS.into_iter().for_each(|spec| small_object(true, spec));
}

/// Lengths at which a careless reader might take a part for the whole.
fn tempting_lengths(object: &[u8]) -> Vec<usize> {
    let sealed = 65_552;
    let mut lengths: Vec<usize> = (0..64).collect();
    let find = |mark: &[u8]| object.windows(mark.len()).position(|at| at == mark);
    let head = match find(b"\n--- ") {
        Some(mac) => mac + 5 + 43 + 1 + 16,
        None => 8 + u32::from_le_bytes(object[4..8].try_into().unwrap()) as usize,
    };
    for border in (head..object.len()).step_by(sealed) {
        lengths.extend([border.saturating_sub(1), border, border + 1, border + 16]);
    }
    for block in (head..object.len()).step_by((128 << 10) + 3) {
        lengths.extend([block + 5, block + 6, block + 9]);
    }
    lengths.extend([object.len() - 1, object.len() - 4, object.len() - 16, object.len() - 17]);
    lengths.retain(|len| *len < object.len());
    lengths
}

#[test]
fn a_segment_cut_at_any_border_is_found() {
    run(async {
        let content = segment(SEGMENT, 9);
        for encrypted in [false, true] {
            for spec in CODECS {
                let bench = Bench::in_memory(encrypted).await;
                let key = bench.push(spec, SEGMENT, &content).await.unwrap().key;
                let object = bench.stored(&key).await;
                assert!(object.len() > MIB, "the segment does not compress");
                let lengths = tempting_lengths(&object);
                assert!(lengths.len() > 120);
                for len in lengths {
                    gives(&bench, object.slice(..len));
                    is_damage(bench.fetch(SEGMENT).await, false, &format!("{spec}: cut at {len}"));
                }
            }
        }
    });
}

#[test]
fn a_flip_anywhere_in_a_segment_is_found() {
    run(async {
        let content = thin_segment(SEGMENT, 9);
        for encrypted in [false, true] {
            for spec in CODECS {
                let bench = Bench::in_memory(encrypted).await;
                let key = bench.push(spec, SEGMENT, &content).await.unwrap().key;
                let object = bench.stored(&key).await;
                let stanza = recipient_stanza(&object);
                for place in (0..object.len()).step_by(object.len() / 50 + 1) {
                    let mut changed = object.to_vec();
                    changed[place] ^= 1 << (place % 8);
                    gives(&bench, changed);
                    let what = format!("{spec}: byte {place} flipped");
                    is_damage(bench.fetch(SEGMENT).await, stanza.contains(&place), &what);
                }
            }
        }
    });
}

/// A second push must not bless an object that was damaged since the first.
#[test]
fn a_damaged_object_does_not_pass_for_the_same_content() {
    run(async {
        for encrypted in [false, true] {
            let bench = Bench::in_memory(encrypted).await;
            let content = segment(SEGMENT, 1);
            let key = bench.push("zstd:1", SEGMENT, &content).await.unwrap().key;
            let object = bench.stored(&key).await;
            for len in [0, 1, 100, 500, object.len() / 2, object.len() - 1] {
                gives(&bench, object.slice(..len));
                refused(bench.push("zstd:1", SEGMENT, &content).await, Kind::Damaged, "a cut object");
            }
            gives(&bench, noise(1, object.len()));
            refused(bench.push("zstd:1", SEGMENT, &content).await, Kind::Damaged, "noise");
        }
    });
}

/// An object that shrinks between two requests; larger than what one request reads.
#[test]
fn an_object_that_shrinks_while_it_is_read_is_damaged() {
    run(async {
        let bench = Bench::in_memory(true).await;
        let large = noise(4, 40 * MIB);
        let kind = walarchive_core::archive::ObjectKind::Wal;
        let content = large.clone();
        bench.archive.put("large", kind, codec("none"), move |sink| sink(&content)).await.unwrap();
        let read = bench.archive.read("large", kind, 1 << 30, Vec::new()).await.unwrap();
        assert!(read.0 == large, "read in several requests");
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        bench.store.set(Trouble::Lies(Box::new(move |_, whole| {
            let earlier = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            whole.slice(..if earlier == 0 { whole.len() } else { 33 * MIB })
        })));
        let read = bench.archive.read("large", kind, 1 << 30, Vec::new()).await;
        refused(read, Kind::Damaged, "an object that shrinks");
    });
}
