//! Connections that break, and servers that stand still.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::patience::Patience;
use walarchive_core::storage::{Created, SftpOptions, SftpStorage, Storage};
use walarchive_tests::{Scratch, Sshd, tree_of};

use super::{open, options, run, staged};
use walarchive_tests::conformance::{content, keys, kind, one};

/// The `ssh` processes that speak to `sshd`.
fn clients(sshd: &Sshd) -> Vec<u32> {
    let port = format!("-oPort={}", sshd.port());
    let speaks = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|argument| argument == port)
    };
    tree_of(std::process::id()).into_iter().filter(speaks).collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[test]
fn a_lost_connection_is_unreachable_once() {
    let scratch = Scratch::new();
    let Some(mut sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let storage = open(&sshd, &root);
        storage.create("a", one("x")).await.unwrap();
        clients(&sshd).into_iter().for_each(kill);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(content(&storage, "a").await, b"x", "a dead ssh is replaced before it is used");
        sshd.stop();
        let found = [storage.size("a").await, storage.size("a").await].map(kind);
        assert_eq!(found, [Kind::Unreachable; 2]);
        sshd.start_again();
        assert_eq!(content(&storage, "a").await, b"x");
        assert_eq!(clients(&sshd).len(), 1);
    });
}

#[test]
fn a_frozen_server_is_given_up() {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    run(async {
        let quick = SftpOptions {
            stall_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            ..options(&sshd, &root)
        };
        let storage = SftpStorage::open(quick).unwrap();
        storage.create("a", one("x")).await.unwrap();
        sshd.freeze();
        for what in ["with a connection", "without one"] {
            let begun = Instant::now();
            // Those who wait for the same connection wait for the same time.
            let found = join_all((0..8).map(|_| storage.get("a", None))).await;
            let waited = begun.elapsed();
            assert!(
                waited > Duration::from_millis(1500) && waited < Duration::from_secs(6),
                "{what}: {waited:?}"
            );
            for found in found {
                assert_eq!(kind(found), Kind::Unreachable, "{what}");
            }
            assert_eq!(clients(&sshd), [0; 0], "{what}: ssh goes on");
        }
        sshd.thaw();
        assert_eq!(content(&storage, "a").await, b"x");
    });
}

/// A create, again after each loss of the connection; what is stored must be ours.
async fn persist(storage: &SftpStorage, key: &str, content: &[u8]) -> Result<()> {
    let patience = Patience::each(Duration::from_secs(60));
    let created = patience.run(|| storage.create(key, one(content))).await?;
    if created == Created::Exists {
        let found = patience.run(|| storage.get(key, None)).await?;
        if found.bytes[..] != *content {
            return Err(Error::new(Kind::Conflict, format!("{key} has other content")));
        }
    }
    Ok(())
}

async fn persist_large(storage: &SftpStorage, key: &str, content: &[u8]) -> Result<()> {
    let patience = Patience::each(Duration::from_secs(60));
    let upload = patience.run(|| storage.upload(key)).await?;
    let upload = &upload;
    let parts = content.chunks(storage.parts().size).enumerate();
    let parts = parts.map(|(number, part)| {
        let patience = patience.clone();
        async move { patience.run(|| upload.part(number, one(part))).await }
    });
    join_all(parts).await.into_iter().collect::<Result<Vec<_>>>()?;
    patience.run(|| upload.finish()).await
}

/// Breaks the connection again and again while objects are stored, and looks whether all that are visible are whole,
/// and all that were acknowledged are there.
fn survive(breaks: impl Fn(&mut Sshd, usize) + Send + 'static) {
    let scratch = Scratch::new();
    let Some(sshd) = Sshd::start(&scratch) else { return };
    let root = scratch.dir("archive");
    let storage = open(&sshd, &root);
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let stop = std::sync::Arc::clone(&done);
    let breaker = std::thread::spawn(move || {
        let mut sshd = sshd;
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) && count < 25 {
            std::thread::sleep(Duration::from_millis(60 + 37 * (count as u64 % 7)));
            breaks(&mut sshd, count);
            count += 1;
        }
        (sshd, count)
    });
    run(async {
        let wanted: BTreeMap<String, Vec<u8>> = (0..60_usize)
            .map(|nth| {
                let length = if nth % 10 == 9 { (11 << 20) + nth } else { 10_000 + nth * 5000 };
                (format!("d{}/k{nth}", nth % 3), (0..length).map(|at| (at >> 5) as u8 ^ nth as u8).collect())
            })
            .collect();
        let storage = &storage;
        let stored = wanted.iter().map(|(key, content)| async move {
            match content.len() {
                ..1_000_000 => persist(storage, key, content).await,
                _ => persist_large(storage, key, content).await,
            }
        });
        let mut stored: Vec<_> = stored.collect();
        let mut results = Vec::new();
        while !stored.is_empty() {
            let now = stored.split_off(stored.len().saturating_sub(6));
            results.extend(join_all(now).await);
            // Visible objects are whole at any time.
            let local = walarchive_core::storage::LocalStorage::open(&root).unwrap();
            for key in keys(&local, "").await {
                assert!(content(&local, &key).await == wanted[&key], "{key} is not whole");
            }
        }
        results.into_iter().for_each(|result| result.unwrap());
        done.store(true, Ordering::Relaxed);
        let (mut sshd, count) = breaker.join().unwrap();
        assert!(count > 3, "the connection broke {count} times only");
        sshd.start_again();
        let fresh = open(&sshd, &root);
        for (key, bytes) in &wanted {
            assert!(content(&fresh, key).await == *bytes, "{key}");
        }
        let left = staged(&root);
        eprintln!("{count} breaks, {} staging files left", left.len());
    });
}

#[test]
fn killed_clients_lose_nothing() {
    survive(|sshd, _| clients(sshd).into_iter().for_each(kill));
}

#[test]
fn killed_sessions_and_servers_lose_nothing() {
    survive(|sshd, count| if count % 3 == 2 { sshd.start_again() } else { sshd.kill_sessions() });
}
