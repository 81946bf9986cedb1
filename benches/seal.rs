//! One WAL segment from plain bytes to the stored object, next to the bare codec: how much sealing adds, and what.
//!
//! All cases take turns within one run; what counts is CPU time of the one thread they all run on.

use std::hint::black_box;

use bytes::Bytes;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use walarchive_benches::{Case, Data, Row, samples, smoke, turns};
use walarchive_core::archive::{Binding, ContentDigest, ObjectKind};
use walarchive_core::cipher::age::{AgeCipher, Identity};
use walarchive_core::cipher::{Cipher, Plain};
use walarchive_core::codec::{Codec, CodecSpec};
use walarchive_core::pipeline::{Opener, Sealer};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

const ROUNDS: usize = 41;

/// How a push hands plain bytes on.
const PIECE: usize = 256 << 10;

const ARCHIVE: &str = "0123456789abcdef0123456789abcdef";

fn main() {
    // `cargo bench NAME` filters by name; these cases only make sense together.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if !wanted.is_empty() && !wanted.iter().any(|name| "seal".contains(name.as_str())) {
        return;
    }
    for data in samples() {
        for spec in ["zstd:1", "lz4:1"] {
            segment(&data, &spec.parse::<CodecSpec>().expect("a codec"));
        }
    }
    if smoke() {
        println!("seal: once each, nothing measured");
    }
}

fn segment(data: &Data, spec: &CodecSpec) {
    let plain = data.segment();
    let codec = spec.build();
    let codec = codec.as_ref();
    let identity = Identity::generate().expect("random bytes");
    let age = AgeCipher::new(vec![identity.recipient()], vec![identity]);
    let mut content = Vec::with_capacity(plain.len() + (1 << 20));
    compress(codec, &plain, &mut content);
    let mut secret = content.clone();
    let stored = seal(codec, &age, &plain);

    let mut bare = Compressor::new(1).expect("zstd");
    bare.set_parameter(CParameter::ChecksumFlag(true)).expect("zstd");
    let mut room = vec![0; zstd::zstd_safe::compress_bound(plain.len())];
    let chacha = ChaCha20Poly1305::new(&[7; 32].into());
    let mut cases: Vec<Case<'_>> = vec![
        ("codec", Box::new(|| compress(codec, &plain, &mut content))),
        ("sealed, age", Box::new(|| drop(black_box(seal(codec, &age, &plain))))),
        ("sealed, not encrypted", Box::new(|| drop(black_box(seal(codec, &Plain, &plain))))),
        ("digest alone", Box::new(|| drop(black_box(digest(&plain))))),
        ("cipher alone, in place", Box::new(|| encrypt(&chacha, &mut secret))),
        ("opened, age", Box::new(|| open(codec, &age, &stored))),
    ];
    if spec.id() == CodecSpec::default().id() {
        let bare = || {
            black_box(bare.compress_to_buffer(&plain, &mut room[..]).expect("zstd"));
        };
        cases.push(("bare libzstd, one call", Box::new(bare)));
    }
    let rows = turns(ROUNDS, &mut cases);
    report(data, spec, plain.len(), &rows);
}

fn report(data: &Data, spec: &CodecSpec, plain: usize, rows: &[Row]) {
    if smoke() {
        return;
    }
    let of = |name: &str| rows.iter().find(|row| row.name == name).map_or(0.0, |row| row.cpu.as_secs_f64());
    let codec = of("codec");
    println!("\nseal: {} WAL, {spec}, one segment of 16 MiB, medians of {ROUNDS} turns", data.name);
    for row in rows {
        let cpu = row.cpu.as_secs_f64();
        println!(
            "  {:24} {:8.2} ms wall {:8.2} ms CPU {:8.0} MB/s {:6.3} x codec",
            row.name,
            row.wall.as_secs_f64() * 1e3,
            cpu * 1e3,
            plain as f64 / cpu / 1e6,
            cpu / codec
        );
    }
    let parts = codec + of("digest alone") + of("cipher alone, in place");
    println!(
        "  sealing takes {:.3} times the codec's time, and {:.3} times the time of codec, digest and cipher alone",
        of("sealed, age") / codec,
        of("sealed, age") / parts
    );
}

fn compress(codec: &dyn Codec, plain: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut encoder = codec.encoder().expect("an encoder");
    plain.chunks(PIECE).for_each(|piece| encoder.push(piece, out).expect("compress"));
    encoder.finish(out).expect("compress");
}

fn digest(plain: &[u8]) -> String {
    let mut digest = ContentDigest::new(ARCHIVE);
    plain.chunks(PIECE).for_each(|piece| digest.update(piece));
    digest.hex()
}

fn encrypt(cipher: &ChaCha20Poly1305, content: &mut [u8]) {
    for chunk in content.chunks_mut(64 << 10) {
        cipher.encrypt_inout_detached(&Nonce::default(), b"", chunk.into()).expect("encrypt");
    }
}

/// What a push does between reading the segment and storing the object.
fn seal(codec: &dyn Codec, cipher: &dyn Cipher, plain: &[u8]) -> Vec<Bytes> {
    let mut sealer = Sealer::new(codec, cipher).expect("seal");
    let mut digest = ContentDigest::new(ARCHIVE);
    for piece in plain.chunks(PIECE) {
        digest.update(piece);
        sealer.push(piece).expect("seal");
    }
    let digest = digest.hex();
    let made = sealer.finish(|facts| {
        let mut binding = Binding::new(ARCHIVE, "main/1/wal/1", ObjectKind::Wal, codec.id());
        binding.plain = Some(facts.plain);
        binding.stored = Some(facts.stored);
        binding.sum = facts.sum;
        binding.digest = Some(digest);
        binding.to_bytes()
    });
    made.expect("seal")
}

/// What a fetch does between reading the object and writing the segment.
fn open(codec: &dyn Codec, cipher: &dyn Cipher, stored: &[Bytes]) {
    let (head, payload) = stored.split_first().expect("a head");
    let open = cipher.open(head).expect("open");
    let mut opener = Opener::new(open.as_ref(), codec, 1 << 30).expect("open");
    let mut digest = ContentDigest::new(ARCHIVE);
    let mut sink = |plain: &[u8]| {
        digest.update(plain);
        Ok(())
    };
    payload.iter().for_each(|piece| opener.push(piece, &mut sink).expect("open"));
    opener.finish(&mut sink).expect("open");
    black_box(digest.hex());
}
