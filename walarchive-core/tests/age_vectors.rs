//! The public test vectors of the age format, with exactly the outcome that each one names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use walarchive_core::cipher::Cipher;
use walarchive_core::cipher::age::{AgeCipher, Identity};
use walarchive_core::error::{Error, Kind};

/// An identity that several vectors use, for those that name none that we know.
const IDENTITY: &str = "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";

/// Vectors of kinds that walarchive does not open, and how it has to refuse them.
const FOREIGN: [(&str, Outcome); 8] = [
    ("armor_x25519", Outcome::HeaderFailure),
    ("hybrid", Outcome::NoMatch),
    ("hybrid_and_x25519", Outcome::NoMatch),
    ("hybrid_grease", Outcome::NoMatch),
    ("scrypt", Outcome::NoMatch),
    ("scrypt_and_x25519", Outcome::HeaderFailure),
    ("scrypt_not_canonical_body", Outcome::HeaderFailure),
    ("scrypt_uppercase", Outcome::NoMatch),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    HeaderFailure,
    NoMatch,
    MacFailure,
    PayloadFailure,
}

struct Vector {
    expected: Outcome,
    payload: Option<String>,
    identities: Vec<Identity>,
    file: Vec<u8>,
}

fn load(name: &str, bytes: &[u8]) -> Vector {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").expect("an empty line");
    let fields: Vec<(String, String)> = std::str::from_utf8(&bytes[..end])
        .unwrap()
        .lines()
        .map(|line| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap())
        .collect();
    let field = |wanted: &str| fields.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == name).map(|(_, outcome)| *outcome);
    let expected = foreign.unwrap_or_else(|| match field("expect").unwrap() {
        "success" => Outcome::Success,
        "header failure" => Outcome::HeaderFailure,
        "no match" => Outcome::NoMatch,
        "HMAC failure" => Outcome::MacFailure,
        "payload failure" => Outcome::PayloadFailure,
        other => panic!("{name}: unknown outcome {other}"),
    });
    let mut identities: Vec<Identity> = fields
        .iter()
        .filter(|(key, value)| key == "identity" && !value.starts_with("AGE-SECRET-KEY-PQ-"))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    if identities.is_empty() {
        identities.push(IDENTITY.parse().unwrap());
    }
    let mut file = bytes[end + 2..].to_vec();
    if field("compressed") == Some("zlib") {
        let mut expanded = Vec::new();
        flate2::read::ZlibDecoder::new(&file[..]).read_to_end(&mut expanded).unwrap();
        file = expanded;
    }
    let payload = field("payload").map(str::to_owned).filter(|_| foreign.is_none());
    Vector { expected, payload, identities, file }
}

/// Opens a whole file; what came of it, what was released, and the error if there is one.
fn open(cipher: &dyn Cipher, file: &[u8], step: usize) -> (Outcome, Vec<u8>, Option<Error>) {
    let head = match cipher.read_head(file) {
        Ok(Some(head)) => head,
        Ok(None) => return (Outcome::HeaderFailure, Vec::new(), None),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Damaged);
            return (Outcome::HeaderFailure, Vec::new(), Some(error));
        }
    };
    let (head, payload) = file.split_at(head.len);
    let opened = match cipher.open(head) {
        Ok(opened) => opened,
        Err(error) => {
            let outcome = match error.kind() {
                Kind::Key => Outcome::NoMatch,
                Kind::Damaged if error.to_string().contains("MAC does not match") => Outcome::MacFailure,
                Kind::Damaged => Outcome::HeaderFailure,
                other => panic!("{other:?}: {error}"),
            };
            return (outcome, Vec::new(), Some(error));
        }
    };
    let mut released = Vec::new();
    let mut stream = opened.stream();
    let result = payload
        .chunks(step)
        .try_for_each(|piece| stream.push(piece, &mut released))
        .and_then(|()| stream.finish(&mut released));
    match result {
        Ok(()) => {
            assert_eq!(opened.plain_len(payload.len() as u64).unwrap(), released.len() as u64);
            (Outcome::Success, released, None)
        }
        Err(error) => {
            assert_eq!(error.kind(), Kind::Damaged);
            (Outcome::PayloadFailure, released, Some(error))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_vector_ends_as_it_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/age");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "README.md" {
            continue;
        }
        let vector = load(&name, &fs::read(&path).unwrap());
        *seen.entry(format!("{:?}", vector.expected)).or_default() += 1;
        let mut cipher = AgeCipher::new(Vec::new(), vector.identities);
        for (threads, step) in [(1, usize::MAX), (1, 1000), (2, usize::MAX), (3, 300_000)] {
            cipher = cipher.with_threads(threads);
            let (outcome, released, error) = open(&cipher, &vector.file, step);
            assert_eq!(outcome, vector.expected, "{name} with {threads} threads: {error:?}");
            if let Some(expected) = &vector.payload {
                assert_eq!(&hex(&Sha256::digest(&released)), expected, "{name} with {threads} threads");
            }
        }
    }
    // A vector that got lost would go unnoticed otherwise.
    let seen: Vec<(&str, usize)> = seen.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let expected =
        [("HeaderFailure", 35), ("MacFailure", 1), ("NoMatch", 8), ("PayloadFailure", 18), ("Success", 14)];
    assert_eq!(seen, expected);
}
