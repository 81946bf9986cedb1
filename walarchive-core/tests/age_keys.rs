//! Identities, recipients, and the files that hold them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use walarchive_core::cipher::age::{
    Identity, Recipient, parse_identities, parse_recipients, read_identity_file,
};
use walarchive_core::error::{Error, Kind};

/// From the specification of the format: the secret is 32 times 0x42.
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
const HYBRID: &str = "AGE-SECRET-KEY-PQ-1HZLGZUPT4ETPKDEV8HSGFDCYZ4E522W0A7PU2LHT8EH9W6YLNC3SW78XKG";

fn is_key_error(error: &Error) -> bool {
    let story = format!("{error} {error:?} {}", error.story());
    error.kind() == Kind::Key && !story.contains("GFPYYSJZ") && !story.contains("HZLGZUPT")
}

#[test]
fn keys_have_the_text_form_of_the_specification() {
    let identity: Identity = IDENTITY.parse().unwrap();
    assert_eq!(identity.recipient().to_string(), RECIPIENT);
    assert_eq!(*identity.to_secret_string(), IDENTITY);
    assert_eq!(RECIPIENT.parse::<Recipient>().unwrap(), identity.recipient());
    let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    assert_ne!(one.recipient(), two.recipient());
    assert_eq!(one.to_secret_string().parse::<Identity>().unwrap().recipient(), one.recipient());
}

#[test]
fn a_secret_is_never_shown() {
    let identity: Identity = IDENTITY.parse().unwrap();
    let shown = format!("{identity:?} {identity:#?}");
    assert!(!shown.contains("SECRET-KEY") && !shown.contains("66, 66") && shown.contains(RECIPIENT));
}

#[test]
fn malformed_keys_are_refused_without_being_repeated() {
    let flipped = IDENTITY.replace("Q4EGAEX", "Q4EGAEY");
    let mixed = IDENTITY.replace("EGAEX", "egaex");
    let lower = IDENTITY.to_lowercase();
    for bad in ["", "AGE-SECRET-KEY-1", &IDENTITY[..70], &flipped, &mixed, &lower, HYBRID, RECIPIENT] {
        assert!(is_key_error(&bad.parse::<Identity>().unwrap_err()), "{bad}");
    }
    let upper = RECIPIENT.to_uppercase();
    let cut = &RECIPIENT[..60];
    let plugin = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t";
    let words = [("it is mistyped", cut), ("does not begin with age1", &upper), ("plugin", plugin)];
    for (why, bad) in words.into_iter().chain([("secret", IDENTITY), ("ssh", "ssh-ed25519 AAAA")]) {
        let error = bad.parse::<Recipient>().unwrap_err();
        assert!(is_key_error(&error) && error.to_string().contains(why), "{error:?}");
    }
}

fn bech32_text<C: bech32::Checksum>(bytes: &[u8]) -> String {
    bech32::encode::<C>(bech32::Hrp::parse("age").unwrap(), bytes).unwrap()
}

#[test]
fn a_recipient_is_32_bytes_in_bech32_and_no_point_of_low_order() {
    assert!(bech32_text::<bech32::Bech32>(&[9; 32]).parse::<Recipient>().is_ok());
    for bad in [
        bech32_text::<bech32::Bech32>(&[9; 31]),
        bech32_text::<bech32::Bech32>(&[9; 33]),
        bech32_text::<bech32::Bech32m>(&[9; 32]),
        bech32_text::<bech32::Bech32>(&[0; 32]),
    ] {
        assert_eq!(bad.parse::<Recipient>().unwrap_err().kind(), Kind::Key, "{bad}");
    }
    let order_eight = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
    let point: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&order_eight[2 * at..2 * at + 2], 16).unwrap()).collect();
    let error = bech32_text::<bech32::Bech32>(&point).parse::<Recipient>().unwrap_err();
    assert!(error.to_string().contains("low order"), "{error}");
}

#[test]
fn identity_files_are_read_as_age_keygen_writes_them() {
    let another = Identity::generate().unwrap();
    let text = format!(
        "\u{feff}# created: 2026-01-02T03:04:05Z\r\n# public key: {RECIPIENT}\r\n{IDENTITY}\r\n\n  {}  \n",
        *another.to_secret_string()
    );
    let found: Vec<Recipient> = parse_identities(&text).unwrap().iter().map(Identity::recipient).collect();
    assert_eq!(found, [RECIPIENT.parse().unwrap(), another.recipient()]);
}

#[test]
fn what_is_wrong_with_an_identity_file_is_said_with_its_line() {
    let flipped = IDENTITY.replace("Q4EGAEX", "Q4EGAEY");
    for (why, line) in [
        ("encrypted itself", "age-encryption.org/v1"),
        ("encrypted itself", "-----BEGIN AGE ENCRYPTED FILE-----"),
        ("age plugins are not supported", "AGE-PLUGIN-YUBIKEY-1GFPYYSJZ"),
        ("post-quantum identities are not supported", HYBRID),
        ("ssh keys are not supported", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("this is a recipient", RECIPIENT),
        ("its checksum does not hold", &flipped),
        ("does not begin with AGE-SECRET-KEY-1", "GFPYYSJZ"),
    ] {
        let error = parse_identities(&format!("# comment\n{IDENTITY}\n\n{line}\n")).unwrap_err();
        assert!(is_key_error(&error), "{error:?}");
        assert!(error.to_string().contains("line 4") && error.to_string().contains(why), "{error}");
    }
    for empty in ["", "\n\n", "# only a comment\n"] {
        let error = parse_identities(empty).unwrap_err();
        assert!(is_key_error(&error) && error.to_string().contains("there is none"), "{error:?}");
    }
}

#[test]
fn recipients_stand_on_lines_or_between_spaces() {
    let other = Identity::generate().unwrap().recipient();
    let text = format!("# both hosts\n{RECIPIENT}  {other}\t# and again:\r\n\n{RECIPIENT}\n");
    assert_eq!(parse_recipients(&text).unwrap(), [RECIPIENT.parse().unwrap(), other]);
    assert_eq!(parse_recipients(" # nobody\n").unwrap(), []);
    let error = parse_recipients(&format!("{RECIPIENT}\n{RECIPIENT} {IDENTITY}\n")).unwrap_err();
    assert!(is_key_error(&error) && error.to_string().contains("line 2"), "{error:?}");
}

fn write(directory: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn an_identity_file_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{IDENTITY}\n");
    for mode in [0o600, 0o400, 0o700] {
        let path = write(directory.path(), &format!("good-{mode:o}"), text.as_bytes(), mode);
        assert_eq!(read_identity_file(&path).unwrap().len(), 1);
    }
    for mode in [0o640, 0o604, 0o620, 0o610, 0o601, 0o644, 0o660] {
        let path = write(directory.path(), &format!("open-{mode:o}"), text.as_bytes(), mode);
        let error = read_identity_file(&path).unwrap_err();
        assert!(is_key_error(&error) && error.story().contains("chmod 600"), "{error:?}");
        assert_eq!(error.object(), path.to_str());
    }
    // What counts is the file, not the link that leads to it.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("good-600", &link).unwrap();
    assert_eq!(read_identity_file(&link).unwrap().len(), 1);
}

#[test]
fn what_is_no_identity_file_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut long = format!("{IDENTITY}\n").into_bytes();
    long.resize(64 * 1024, b'\n');
    assert!(read_identity_file(&write(directory.path(), "full", &long, 0o600)).is_ok());
    long.push(b'\n');
    for (why, path) in [
        ("no such file", directory.path().join("missing")),
        ("a directory", directory.path().to_owned()),
        ("not a regular file", fifo),
        ("not a regular file", "/dev/null".into()),
        ("longer than 64 KiB", write(directory.path(), "long", &long, 0o600)),
        ("not text", write(directory.path(), "binary", b"\xff\xfe\x00", 0o600)),
        ("there is none", write(directory.path(), "empty", b"", 0o600)),
        ("encrypted itself", write(directory.path(), "age", b"age-encryption.org/v1\n\xff", 0o600)),
    ] {
        let error = read_identity_file(&path).unwrap_err();
        assert!(is_key_error(&error) && error.to_string().contains(why), "{why}: {error:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic_and_keys_are_canonical(text in "(age1|AGE-SECRET-KEY-1|#|ssh-)?\\PC{0,80}") {
        let _ = parse_identities(&text);
        let _ = parse_recipients(&text);
        if let Ok(recipient) = text.parse::<Recipient>() {
            prop_assert_eq!(recipient.to_string(), text);
        }
    }

    #[test]
    fn every_key_survives_as_text_and_no_mistyped_one_does(place in 0..IDENTITY.len(), typed in "[0-9A-Z]") {
        let mut text = IDENTITY.to_owned();
        text.replace_range(place..=place, &typed);
        prop_assert_eq!(text.parse::<Identity>().is_ok(), text == IDENTITY);
        let identity = Identity::generate().unwrap();
        let recipient = identity.recipient().to_string();
        prop_assert_eq!(recipient.parse::<Recipient>().unwrap(), identity.recipient());
    }
}
