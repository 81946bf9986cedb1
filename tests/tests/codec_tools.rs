//! The formats' own programs open what the codecs write, and the codecs read what the programs write.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // A helper may fail its test, or say that it is skipped.

use std::io::Write;
use std::process::{Command, Stdio};

use walarchive_core::codec::CodecSpec;

/// What a program makes of `input`, or nothing when it is not installed here, which a CI must not accept.
fn pipe(program: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{program} cannot be run: {error}");
            eprintln!("SKIPPED: {program} is not installed ({error})");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {complaint}");
    Some(output.stdout)
}

fn samples() -> Vec<Vec<u8>> {
    let rows: String = (0..30_000).map(|n| format!("{n}\t{}\tcontent\n", n * 7919 % 1009)).collect();
    let noise: Vec<u8> =
        (0..400_000_u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    vec![
        vec![],
        b"x".to_vec(),
        vec![0; 3 << 20],
        rows.clone().into_bytes(),
        [noise, rows.into_bytes()].concat(),
    ]
}

fn encode(spec: CodecSpec, plain: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    let mut encoder = spec.build().encoder().unwrap();
    plain.chunks(50_000).for_each(|piece| encoder.push(piece, &mut stored).unwrap());
    encoder.finish(&mut stored).unwrap();
    stored
}

fn decode(spec: CodecSpec, stored: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder = spec.build().decoder().unwrap();
    let mut sink = |bytes: &[u8]| {
        plain.extend_from_slice(bytes);
        Ok(())
    };
    stored.chunks(9999).for_each(|piece| decoder.push(piece, &mut sink).unwrap());
    decoder.finish(&mut sink).unwrap();
    plain
}

fn interoperates(specs: &[&str], program: &str, write: &[&[&str]]) {
    for spec in specs {
        let spec: CodecSpec = spec.parse().unwrap();
        let mut both = (Vec::new(), Vec::new());
        for plain in samples() {
            let stored = encode(spec, &plain);
            let mut frame = Vec::new();
            spec.build().framer().unwrap().pack(&plain, &mut frame).unwrap();
            for stored in [&stored, &frame] {
                let Some(opened) = pipe(program, &["-d", "-c"], stored) else { return };
                assert!(opened == plain, "{program} opens {} bytes of {spec}", plain.len());
            }
            both.0.extend(frame);
            both.0.extend(stored);
            both.1.extend(plain.repeat(2));
            for args in write {
                let Some(written) = pipe(program, args, &plain) else { return };
                assert!(decode(spec, &written) == plain, "{spec} opens {} bytes of {args:?}", plain.len());
            }
        }
        let Some(opened) = pipe(program, &["-d", "-c"], &both.0) else { return };
        assert!(opened == both.1, "{program} opens frames and streams of {spec} behind each other");
    }
}

#[test]
fn zstd_opens_and_is_opened() {
    interoperates(&["zstd:1", "zstd:19"], "zstd", &[&["-1", "-c"], &["-12", "-c"], &["--no-check", "-c"]]);
}

#[test]
fn zstd_opens_what_is_not_compressed() {
    interoperates(&["none"], "zstd", &[&["-1", "-c"]]);
}

#[test]
fn lz4_opens_and_is_opened() {
    interoperates(&["lz4:1", "lz4:9"], "lz4", &[&["-1", "-c"], &["-9", "-c", "-BD"], &["-c", "-BX", "-B4"]]);
}

#[test]
fn gzip_opens_and_is_opened() {
    interoperates(&["gzip:1", "gzip:9"], "gzip", &[&["-1", "-c"], &["-9", "-c"]]);
}

#[test]
fn xz_opens_and_is_opened() {
    interoperates(&["xz:0", "xz:6"], "xz", &[&["-1", "-c"], &["--check=sha256", "-c"], &["-T2", "-c"]]);
}

/// A stored object of an unencrypted archive starts with a skippable frame.
#[test]
fn the_programs_pass_over_skippable_frames() {
    let skippable = [&[0x50, 0x2A, 0x4D, 0x18, 7, 0, 0, 0][..], b"binding"].concat();
    for (spec, program) in [("zstd:1", "zstd"), ("none", "zstd"), ("lz4:1", "lz4")] {
        let stored = [&skippable[..], &encode(spec.parse().unwrap(), b"content")].concat();
        let Some(opened) = pipe(program, &["-d", "-c"], &stored) else { return };
        assert_eq!(opened, b"content", "{program} opens {spec}");
    }
}
