//! What a directory store tells the kernel, and in which order: nothing is acknowledged before it is durable.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // A helper may fail its test, or say that it is skipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use tempfile::TempDir;
use walarchive_core::storage::{Created, LocalStorage, Storage};

/// Names the operation that a traced child does, and the archive it works on.
const CHILD: (&str, &str) = ("WALARCHIVE_TEST_OPERATION", "WALARCHIVE_TEST_ROOT");

/// Does one operation; only in a child process of the tests below.
#[test]
fn traced_child() {
    let (Some(operation), Some(root)) = (std::env::var_os(CHILD.0), std::env::var_os(CHILD.1)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        if operation == "create root" {
            LocalStorage::create_root(Path::new(&root).join("new/root")).unwrap();
            return;
        }
        let storage = LocalStorage::open(&root).unwrap();
        match operation.to_str().unwrap() {
            "create" => {
                let created = storage.create("a/b/object", vec![Bytes::from_static(b"content")]).await;
                assert_eq!(created.unwrap(), Created::New);
            }
            "create again" => {
                let created = storage.create("a/b/object", vec![Bytes::from_static(b"other")]).await;
                assert_eq!(created.unwrap(), Created::Exists);
            }
            "upload" => {
                let upload = storage.upload("a/b/object").await.unwrap();
                upload.part(0, vec![Bytes::from_static(b"con"), Bytes::from_static(b"tent")]).await.unwrap();
                upload.finish().await.unwrap();
            }
            "delete" => storage.delete("a/b/object").await.unwrap(),
            other => panic!("{other}"),
        }
    });
}

/// The system calls of an operation on the archive at `root`, with paths shown from the root on; nothing
/// where processes cannot be traced, which a CI must not accept.
fn trace(operation: &str, root: &Path) -> Option<Vec<String>> {
    let log = TempDir::new().unwrap();
    let log = log.path().join("trace");
    let calls = "trace=mkdir,mkdirat,write,pwrite64,fsync,fdatasync,link,linkat,rename,renameat,renameat2,\
                 unlink,unlinkat";
    let traced = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-e", calls, "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "traced_child"])
        .envs([(CHILD.0, operation.as_ref()), (CHILD.1, root.as_os_str())])
        .output();
    match traced {
        Ok(output) if output.status.success() => {}
        other => {
            let reason = other.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            let allowed =
                std::env::var_os("CI").is_none() && !matches!(&reason, Ok(out) if out.contains("FAILED"));
            assert!(allowed, "strace: {reason:?}");
            eprintln!("SKIPPED: the order of system calls needs strace: {reason:?}");
            return None;
        }
    }
    let root = root.canonicalize().unwrap();
    let root = root.to_str().unwrap();
    let text = fs::read_to_string(log).unwrap();
    let relevant = text.lines().filter(|line| line.contains(root) && !line.contains("resumed>"));
    Some(relevant.map(|line| line.replace(root, "ROOT")).collect())
}

/// Where the first call of that name stands that mentions all of `parts`, behind `after`.
fn find(calls: &[String], after: usize, name: &str, parts: &[&str]) -> usize {
    let found = calls.iter().enumerate().skip(after).find(|(_, call)| {
        let call = call.split_once(' ').map_or("", |(_, call)| call.trim_start());
        call.starts_with(name) && parts.iter().all(|part| call.contains(part))
    });
    found.map_or_else(|| panic!("no {name} {parts:?} behind {after} in {calls:#?}"), |(at, _)| at + 1)
}

fn sync(calls: &[String], after: usize, path: &str) -> usize {
    find(calls, after, "fsync", &[&format!("<{path}>")])
}

#[test]
fn create_syncs_content_before_the_name_and_the_name_before_the_answer() {
    let root = TempDir::new().unwrap();
    let Some(calls) = trace("create", root.path()) else { return };
    let made = find(&calls, 0, "mkdir", &["\"ROOT/a\""]);
    sync(&calls, made, "ROOT");
    let made = find(&calls, made, "mkdir", &["\"ROOT/a/b\""]);
    sync(&calls, made, "ROOT/a");
    let written = find(&calls, made, "write", &["<ROOT/a/b/object#1>"]);
    let synced = sync(&calls, written, "ROOT/a/b/object#1");
    let linked = find(&calls, synced, "link", &["\"ROOT/a/b/object#1\"", "\"ROOT/a/b/object\""]);
    sync(&calls, linked, "ROOT/a/b");
    assert!(!root.path().join("a/b/object#1").exists());
}

#[test]
fn create_makes_durable_what_it_finds() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    fs::write(root.path().join("a/b/object"), "by a writer that died before it synced").unwrap();
    let Some(calls) = trace("create again", root.path()) else { return };
    let mut after = sync(&calls, 0, "ROOT/a/b/object");
    for directory in ["ROOT/a/b", "ROOT/a", "ROOT"] {
        after = sync(&calls, after, directory);
    }
}

#[test]
fn upload_syncs_content_before_the_name_and_the_name_before_the_answer() {
    let root = TempDir::new().unwrap();
    let Some(calls) = trace("upload", root.path()) else { return };
    let made = find(&calls, 0, "mkdir", &["\"ROOT/a\""]);
    sync(&calls, made, "ROOT");
    let written = find(&calls, made, "write", &["<ROOT/a/b/object#1>"]);
    let synced = sync(&calls, written, "ROOT/a/b/object#1");
    let renamed = find(&calls, synced, "rename", &["\"ROOT/a/b/object#1\"", "\"ROOT/a/b/object\""]);
    sync(&calls, renamed, "ROOT/a/b");
}

#[test]
fn delete_syncs_the_directory() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    fs::write(root.path().join("a/b/object"), "content").unwrap();
    let Some(calls) = trace("delete", root.path()) else { return };
    let removed = find(&calls, 0, "unlink", &["\"ROOT/a/b/object\""]);
    sync(&calls, removed, "ROOT/a/b");
    assert!(root.path().join("a/b").is_dir(), "directories stay");
    // Somebody else may have removed it a moment ago, and may not have survived.
    let Some(calls) = trace("delete", root.path()) else { return };
    sync(&calls, 0, "ROOT/a/b");
}

#[test]
fn a_new_root_is_synced_with_all_that_lead_to_it() {
    let root = TempDir::new().unwrap();
    let Some(calls) = trace("create root", root.path()) else { return };
    let made = find(&calls, 0, "mkdir", &["\"ROOT/new\""]);
    let synced = sync(&calls, made, "ROOT");
    let made = find(&calls, synced, "mkdir", &["\"ROOT/new/root\""]);
    sync(&calls, made, "ROOT/new");
}
