//! One suite for every codec: what goes in comes out, and nothing else ever does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test's helpers fail the test.

use proptest::prelude::*;
use walarchive_core::codec::{Codec, CodecSpec};
use walarchive_core::error::{Error, Kind, Result};

/// More than any test stores.
const ALL: usize = 1 << 30;

/// What a sink says that wants no more.
const TOO_MUCH: &str = "more than was asked for";

fn spec(text: &str) -> CodecSpec {
    text.parse().unwrap()
}

/// Bytes that do not compress, the same on every run.
fn random(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Bytes that compress as table rows do.
fn rows(len: usize) -> Vec<u8> {
    let mut text = String::with_capacity(len + 64);
    for row in 0.. {
        if text.len() >= len {
            break;
        }
        text.push_str(&format!("{row}\t{}\tsome text that comes again\t\\N\n", row * 7919 % 1009));
    }
    text.truncate(len);
    text.into_bytes()
}

fn encode(codec: &dyn Codec, plain: &[u8], piece: usize) -> Vec<u8> {
    let mut out = b"before".to_vec();
    let mut encoder = codec.encoder().unwrap();
    for piece in plain.chunks(piece) {
        encoder.push(piece, &mut out).unwrap();
    }
    encoder.finish(&mut out).unwrap();
    assert!(out.starts_with(b"before"), "an encoder appends");
    out.split_off(6)
}

/// Takes plain bytes up to a limit, as callers do who know how much they asked for.
struct Taken {
    plain: Vec<u8>,
    limit: usize,
}

impl Taken {
    fn up_to(limit: usize) -> Taken {
        Taken { plain: Vec::new(), limit }
    }

    fn take(&mut self, plain: &[u8]) -> Result<()> {
        assert!(plain.len() <= 256 << 10, "a piece of {} bytes", plain.len());
        if plain.len() > self.limit - self.plain.len() {
            return Err(Error::damaged(TOO_MUCH));
        }
        self.plain.extend_from_slice(plain);
        Ok(())
    }
}

fn decode(codec: &dyn Codec, stored: &[u8], piece: usize, limit: usize) -> Result<Vec<u8>> {
    let mut taken = Taken::up_to(limit);
    let mut decoder = codec.decoder()?;
    for piece in stored.chunks(piece) {
        decoder.push(piece, &mut |plain| taken.take(plain))?;
    }
    decoder.finish(&mut |plain| taken.take(plain))?;
    Ok(taken.plain)
}

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", vec![]),
        ("one byte", vec![7]),
        ("one block", vec![0; 128 << 10]),
        ("one block and one byte", random((128 << 10) + 1)),
        ("rows", rows(300_000)),
        ("random", random(300_000)),
        ("long", [rows(2 << 20), random(1 << 20)].concat()),
    ]
}

fn damaged<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    assert_eq!(result.expect_err(what).kind(), Kind::Damaged, "{what}");
}

fn round_trips(codec: &dyn Codec) {
    let reader = codec.id().reader();
    for (name, plain) in samples() {
        for piece in [1 << 30, 64 << 10, 4093] {
            let stored = encode(codec, &plain, piece);
            let exactly = decode(&*reader, &stored, piece, plain.len()).unwrap();
            assert!(exactly == plain, "{name} in pieces of {piece}");
            if !plain.is_empty() {
                let error = decode(&*reader, &stored, piece, plain.len() - 1).expect_err("one byte too much");
                assert_eq!(error.to_string(), TOO_MUCH, "the sink's own error comes back");
            }
        }
        if plain.len() <= 300_000 {
            let stored = encode(codec, &plain, plain.len().max(1));
            assert!(decode(&*reader, &stored, 1, ALL).unwrap() == plain, "{name} byte by byte");
        }
    }
}

/// A sink that has enough ends the stream for good, be it at the very last byte.
fn stays_failed(codec: &dyn Codec) {
    for (len, limit) in [(700_000, 300_000), (700_000, 699_999), (1, 0)] {
        let stored = encode(codec, &rows(len), ALL);
        for pushed_again in [true, false] {
            let mut taken = Taken::up_to(limit);
            let mut decoder = codec.decoder().unwrap();
            let error = decoder.push(&stored, &mut |plain| taken.take(plain)).expect_err("a full sink");
            assert_eq!(error.to_string(), TOO_MUCH, "the sink's own error comes back");
            let mut asked = false;
            let mut sink = |_: &[u8]| {
                asked = true;
                Ok(())
            };
            if pushed_again {
                damaged(decoder.push(&stored, &mut sink), "a decoder that failed stays failed");
            }
            damaged(decoder.finish(&mut sink), "a stream that failed does not end well");
            assert!(!asked, "the sink is not asked again");
        }
    }
}

fn concatenates(codec: &dyn Codec) {
    let parts = [rows(1000), vec![], random(70_000), b"end".to_vec()];
    let stored: Vec<u8> = parts.iter().flat_map(|plain| encode(codec, plain, ALL)).collect();
    for piece in [1, 5, 1 << 20] {
        assert!(decode(codec, &stored, piece, ALL).unwrap() == parts.concat());
    }
    let mut frames = Vec::new();
    let mut framer = codec.framer().unwrap();
    parts.iter().for_each(|plain| framer.pack(plain, &mut frames).unwrap());
    assert!(decode(codec, &frames, 1000, ALL).unwrap() == parts.concat(), "frames are streams");
}

fn truncations(codec: &dyn Codec) {
    for plain in [vec![], rows(700), random(200)] {
        let stored = encode(codec, &plain, ALL);
        for len in 0..stored.len() {
            damaged(decode(codec, &stored[..len], 100, ALL), &format!("cut at {len} of {}", stored.len()));
            let framer = &mut codec.framer().unwrap();
            damaged(framer.unpack(&stored[..len], plain.len(), &mut Vec::new()), "a cut frame");
        }
        for tail in [&b"\0"[..], b"\0\0\0\0", b"trailing garbage", &stored[..stored.len() - 1]] {
            damaged(decode(codec, &[&stored, tail].concat(), 100, ALL), &format!("{tail:?} behind the end"));
        }
    }
}

fn flips(codec: &dyn Codec) {
    let mut framer = codec.framer().unwrap();
    for plain in [vec![], rows(500), random(150)] {
        let stored = encode(codec, &plain, 60);
        let mut frame = Vec::new();
        framer.pack(&plain, &mut frame).unwrap();
        for (source, framed) in [(stored, false), (frame, true)] {
            for bit in 0..source.len() * 8 {
                let mut flipped = source.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let result = if framed {
                    let mut out = Vec::new();
                    framer.unpack(&flipped, plain.len(), &mut out).map(|()| out)
                } else {
                    decode(codec, &flipped, 64, 1 << 20)
                };
                match result {
                    Ok(other) => assert!(other == plain, "bit {bit} changes the content"),
                    Err(error) => assert_eq!(error.kind(), Kind::Damaged, "bit {bit}: {error:?}"),
                }
            }
        }
    }
}

fn frames(codec: &dyn Codec) {
    let mut framer = codec.framer().unwrap();
    for (name, plain) in samples() {
        let (mut frame, mut out) = (b"x".to_vec(), b"y".to_vec());
        framer.pack(&plain, &mut frame).unwrap();
        let frame = &frame[1..];
        framer.unpack(frame, plain.len(), &mut out).unwrap();
        assert!(out[..1] == *b"y" && out[1..] == plain, "{name}");
        for wrong in [plain.len() + 1, plain.len().wrapping_sub(1), 0, usize::MAX / 2] {
            if wrong != plain.len() {
                let mut out = b"y".to_vec();
                damaged(framer.unpack(frame, wrong, &mut out), "a wrong length");
                assert_eq!(out, b"y", "what does not hold leaves nothing behind");
            }
        }
        let trailing = [frame, b"garbage"].concat();
        damaged(framer.unpack(&trailing, plain.len(), &mut Vec::new()), "garbage behind a frame");
        // The worker is as good as new after an error.
        framer.unpack(frame, plain.len(), &mut Vec::new()).unwrap();
    }
    damaged(framer.unpack(&[], 0, &mut Vec::new()), "no frame at all");
    damaged(framer.unpack(b"neither fish nor fowl", 10, &mut Vec::new()), "no frame");
}

fn conformance(spec: CodecSpec) {
    let codec = spec.build();
    assert_eq!(codec.id(), spec.id());
    round_trips(&*codec);
    stays_failed(&*codec);
    concatenates(&*codec);
    truncations(&*codec);
    flips(&*codec);
    frames(&*codec);
}

#[test]
fn zstd_conforms() {
    ["zstd:1", "zstd:3", "zstd:19"].into_iter().for_each(|text| conformance(spec(text)));
}

#[test]
fn lz4_conforms() {
    ["lz4:1", "lz4:12"].into_iter().for_each(|text| conformance(spec(text)));
}

#[test]
fn gzip_conforms() {
    ["gzip:1", "gzip:6", "gzip:9"].into_iter().for_each(|text| conformance(spec(text)));
}

#[test]
fn xz_conforms() {
    ["xz:0", "xz:6"].into_iter().for_each(|text| conformance(spec(text)));
}

#[test]
fn none_conforms() {
    conformance(spec("none"));
}

/// A skippable frame with some content, as zstd and lz4 have them.
fn skippable(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x50 | kind, 0x2A, 0x4D, 0x18];
    frame.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
    frame.extend_from_slice(content);
    frame
}

#[test]
fn skippable_frames_are_passed_over_anywhere_between_frames() {
    for text in ["zstd", "none", "lz4"] {
        let codec = spec(text).build();
        let (one, two) = (encode(&*codec, &rows(5000), ALL), encode(&*codec, b"two", ALL));
        let skips = [skippable(0, b""), skippable(9, &random(70_000)), skippable(15, b"binding")];
        let stored =
            [&skips[2][..], &skips[0], &one, &skips[1], &skips[0], &two, &skips[2], &skips[0]].concat();
        let plain = [rows(5000), b"two".to_vec()].concat();
        for piece in [1, 3, 1 << 20] {
            assert!(decode(&*codec, &stored, piece, plain.len()).unwrap() == plain, "{text} by {piece}");
        }
        damaged(decode(&*codec, &skips.concat(), 10, ALL), "nothing but frames to skip");
        let cut = [&one[..], &skips[2][..9]].concat();
        damaged(decode(&*codec, &cut, 10, ALL), "a cut frame to skip");
    }
}

#[test]
fn none_costs_next_to_nothing() {
    let plain = random(3 << 20);
    for piece in [1 << 20, 100] {
        let stored = encode(&*spec("none").build(), &plain, piece);
        assert!(stored.len() <= plain.len() + 24 * 3 + 6 + 3 + 4, "{} by {piece}", stored.len());
    }
}

#[test]
fn specs_parse() {
    for (text, shown) in [
        ("zstd", "zstd:1"),
        ("zstd:19", "zstd:19"),
        ("lz4", "lz4:1"),
        ("lz4:12", "lz4:12"),
        ("gzip", "gzip:6"),
        ("xz:0", "xz:0"),
        ("xz", "xz:6"),
        ("none", "none"),
    ] {
        assert_eq!(spec(text).to_string(), shown);
        assert_eq!(spec(shown), spec(text));
    }
    assert_eq!(CodecSpec::default(), spec("zstd:1"));
    for text in [
        "",
        "zstd:",
        "zstd:0",
        "zstd:20",
        "zstd:-1",
        "zstd:x",
        "zstd:1:1",
        "ZSTD",
        " zstd",
        "zstd ",
        "lz4:0",
        "lz4:13",
        "gzip:0",
        "gzip:10",
        "xz:-1",
        "xz:10",
        "none:0",
        "none:",
        "lzo",
        "bzip2",
        "zstd:99999999999",
    ] {
        let error = text.parse::<CodecSpec>().expect_err(text);
        assert_eq!(error.kind(), Kind::Usage, "{text}");
    }
}

fn any_codec() -> impl Strategy<Value = CodecSpec> {
    prop::sample::select(vec!["zstd:1", "zstd:6", "lz4:1", "lz4:9", "gzip:1", "gzip:6", "xz:0", "none"])
        .prop_map(spec)
}

/// Cuts `bytes` into pieces of the given lengths, again and again.
fn cut<'a>(mut bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for len in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at((*len).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_pieces_give_the_same(
        spec in any_codec(),
        runs in prop::collection::vec((any::<u8>(), 1_usize..40_000), 0..12),
        noise in 0_usize..200_000,
        pushes in prop::collection::vec(1_usize..150_000, 1..20),
        pulls in prop::collection::vec(1_usize..50_000, 1..20),
    ) {
        let mut plain: Vec<u8> = runs.iter().flat_map(|&(byte, len)| vec![byte; len]).collect();
        plain.extend(random(noise));
        let codec = spec.build();
        let (mut stored, mut taken) = (Vec::new(), Taken::up_to(plain.len()));
        let mut encoder = codec.encoder().unwrap();
        cut(&plain, &pushes).into_iter().for_each(|piece| encoder.push(piece, &mut stored).unwrap());
        encoder.finish(&mut stored).unwrap();
        let mut decoder = codec.decoder().unwrap();
        for piece in cut(&stored, &pulls) {
            decoder.push(piece, &mut |plain| taken.take(plain)).unwrap();
        }
        decoder.finish(&mut |plain| taken.take(plain)).unwrap();
        prop_assert!(taken.plain == plain);
    }

    #[test]
    fn noise_is_damage_and_never_a_panic(
        spec in any_codec(),
        kept in 0_usize..20,
        noise in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let codec = spec.build();
        let mut stored = encode(&*codec, b"some content", 100);
        stored.truncate(kept);
        stored.extend(noise);
        if let Err(error) = decode(&*codec, &stored, 50, 1 << 20) {
            prop_assert_eq!(error.kind(), Kind::Damaged);
        }
        let _ = codec.framer().unwrap().unpack(&stored, 100, &mut Vec::new());
    }
}
