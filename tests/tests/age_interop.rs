//! Objects and the `age` program: each opens what the other seals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use walarchive_core::cipher::Cipher;
use walarchive_core::cipher::age::{AgeCipher, Identity, parse_recipients, read_identity_file};

const CHUNK: usize = 65_536;
const SIZES: [usize; 7] = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, (1 << 20) + 3];

/// Whether the programs are there. CI must have them; elsewhere their absence is said, loudly.
fn programs() -> bool {
    let there =
        |program| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    let both = there("age") && there("age-keygen");
    if !both {
        let message = "`age` and `age-keygen` are not installed (Debian: apt-get install age)";
        assert!(std::env::var_os("CI").is_none(), "{message}, and CI must have them");
        eprintln!("\n*** SKIPPED: {message}; nothing was proven about working with age ***\n");
    }
    both
}

fn run(program: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that refuses its input does not read all of it.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

fn expect(output: &Output) -> &[u8] {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    &output.stdout
}

/// A new identity from `age-keygen`, in a file.
fn keygen(directory: &Path, name: &str) -> (String, Vec<Identity>) {
    let path = directory.join(name).to_str().unwrap().to_owned();
    expect(&run("age-keygen", &["-o", &path], b""));
    let identities = read_identity_file(Path::new(&path)).unwrap();
    let printed = run("age-keygen", &["-y", &path], b"");
    let printed = parse_recipients(std::str::from_utf8(expect(&printed)).unwrap()).unwrap();
    assert_eq!(printed, [identities[0].recipient()]);
    (path, identities)
}

fn sample(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn seal(cipher: &AgeCipher, content: &[u8]) -> Vec<u8> {
    let mut seal = cipher.seal().unwrap();
    let mut out = vec![seal.head(&sample(200)).unwrap()];
    seal.push(content, &mut out).unwrap();
    seal.finish(&mut out).unwrap();
    out.concat()
}

fn open(cipher: &AgeCipher, object: &[u8]) -> Vec<u8> {
    let head = cipher.read_head(object).unwrap().unwrap();
    let (head, payload) = object.split_at(head.len);
    let opened = cipher.open(head).unwrap();
    let mut content = Vec::new();
    let mut stream = opened.stream();
    stream.push(payload, &mut content).unwrap();
    stream.finish(&mut content).unwrap();
    content
}

#[test]
fn age_opens_what_is_sealed_here() {
    if !programs() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (one_file, one) = keygen(directory.path(), "one");
    let (two_file, two) = keygen(directory.path(), "two");
    let (stranger_file, _) = keygen(directory.path(), "stranger");
    // An identity made here, written to a file as text, is one that age reads.
    let ours = Identity::generate().unwrap();
    let ours_file = directory.path().join("ours").to_str().unwrap().to_owned();
    fs::write(&ours_file, format!("# ours\n{}\n", *ours.to_secret_string())).unwrap();
    let recipients = vec![one[0].recipient(), two[0].recipient(), ours.recipient()];
    for (threads, size) in SIZES.into_iter().flat_map(|size| [(1, size), (2, size)]) {
        let content = sample(size);
        let cipher = AgeCipher::new(recipients.clone(), Vec::new()).with_threads(threads);
        let object = seal(&cipher, &content);
        for file in [&one_file, &two_file, &ours_file] {
            assert!(expect(&run("age", &["-d", "-i", file], &object)) == content, "{size} bytes");
        }
        assert!(!run("age", &["-d", "-i", &stranger_file], &object).status.success());
    }
}

#[test]
fn what_age_seals_opens_here() {
    if !programs() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_, one) = keygen(directory.path(), "one");
    let (_, two) = keygen(directory.path(), "two");
    let recipients = [one[0].recipient().to_string(), two[0].recipient().to_string()];
    let (one, two) = (AgeCipher::new(Vec::new(), one), AgeCipher::new(Vec::new(), two).with_threads(2));
    for size in SIZES {
        let content = sample(size);
        let sealed = run("age", &["-r", &recipients[0], "-r", &recipients[1]], &content);
        let object = expect(&sealed);
        assert_eq!(one.read_head(object).unwrap().unwrap().binding, None);
        assert!(open(&one, object) == content, "{size} bytes");
        assert!(open(&two, object) == content, "{size} bytes");
    }
}
