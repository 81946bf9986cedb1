//! Settings from all their places.

use super::stores::{in_one_line, split_urls};
use super::*;
use crate::storage::Policy;

fn load(flags: &Flags, variables: &[(&str, &str)]) -> Result<Settings> {
    let variables: Vec<_> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Settings::load(flags, variables.into_iter())
}

#[test]
fn flags_beat_variables_and_variables_beat_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("walarchive.toml");
    std::fs::write(
        &file,
        "archive = 'file:///from-file'\ncluster = 'file'\nsystem_id = 5\n[wal]\ncodec = 'lz4'\n",
    )
    .unwrap();
    let flags =
        Flags { config: Some(file), archive: Some("file:///from-flag".to_owned()), ..Flags::default() };
    let settings =
        load(&flags, &[("WALARCHIVE_CLUSTER", "env"), ("WALARCHIVE_ARCHIVE", "file:///from-env")]).unwrap();
    assert_eq!(settings.archive_url().unwrap(), "file:///from-flag");
    assert_eq!(settings.cluster().unwrap().to_string(), "env");
    assert_eq!(settings.system_id().unwrap(), Some(SystemId(5)));
    assert_eq!(settings.wal_codec().unwrap().id(), crate::codec::CodecId::Lz4);
}

#[test]
fn mistakes_in_settings_are_named() {
    let typo = load(&Flags::default(), &[("WALARCHIVE_ARCHVE", "x")]).err().unwrap();
    assert!(typo.story().contains("WALARCHIVE_ARCHVE"), "{}", typo.story());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("walarchive.toml");
    for text in ["archvie = 'x'", "archive = 'a'\narchive = 'b'", "archive = ", "[wal]\ncodek = 'lz4'"] {
        std::fs::write(&file, text).unwrap();
        let flags = Flags { config: Some(file.clone()), ..Flags::default() };
        assert_eq!(load(&flags, &[]).err().unwrap().kind(), Kind::Usage, "{text}");
    }
    let codec = load(&Flags::default(), &[("WALARCHIVE_WAL_CODEC", "zstd:99")]).unwrap();
    assert!(codec.wal_codec().unwrap_err().story().contains("WALARCHIVE_WAL_CODEC"));
}

#[test]
fn several_archives_are_a_list_or_words() {
    for (text, expected) in [
        ("file:///a", vec!["file:///a"]),
        (" /a b ", vec!["/a b"]),
        ("/a /b c\n/d\ns3://d/e?region=f", vec!["/a /b c", "/d", "s3://d/e?region=f"]),
        ("file:///long /archive", vec!["file:///long /archive"]),
        ("file:///a b  sftp://u@h/c d", vec!["file:///a b", "sftp://u@h/c d"]),
        ("archive", vec!["archive"]),
        ("", vec![]),
    ] {
        assert_eq!(split_urls(text), expected, "{text:?}");
        let line = in_one_line(&expected.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(split_urls(&line).len(), expected.len(), "{line:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("walarchive.toml");
    std::fs::write(&file, "archive = ['file:///a b', 's3://c/d?proxy=secret']\narchive_policy = 'any'\n")
        .unwrap();
    let settings = load(&Flags { config: Some(file), ..Flags::default() }, &[]).unwrap();
    assert_eq!(settings.archive_url().unwrap(), "file:///a b s3://c/d");
    assert_eq!(settings.archive_policy().unwrap(), Policy::Any);
    let wrong = load(&Flags::default(), &[("WALARCHIVE_ARCHIVE_POLICY", "most")]).unwrap();
    assert_eq!(wrong.archive_policy().unwrap_err().kind(), Kind::Usage);
}

#[test]
fn an_environment_directory_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("WALARCHIVE_CLUSTER"), "fromdir  \nsecond line").unwrap();
    let flags = Flags { envdir: Some(dir.path().to_owned()), ..Flags::default() };
    assert_eq!(load(&flags, &[]).unwrap().cluster().unwrap().to_string(), "fromdir");
}
