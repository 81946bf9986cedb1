//! One WAL segment from plain bytes to the stored object, next to the bare codec: how much sealing adds, and what.
//!
//! All cases take turns within one run; what counts is CPU time of the one thread they all run on.

use std::hint::black_box;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use walarchive_benches::{Case, Data, Row, compress, digest, open, samples, seal, smoke, turns};
use walarchive_core::cipher::Plain;
use walarchive_core::cipher::age::{AgeCipher, Identity};
use walarchive_core::codec::CodecSpec;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

const ROUNDS: usize = 41;

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

fn encrypt(cipher: &ChaCha20Poly1305, content: &mut [u8]) {
    for chunk in content.chunks_mut(64 << 10) {
        cipher.encrypt_inout_detached(&Nonce::default(), b"", chunk.into()).expect("encrypt");
    }
}
