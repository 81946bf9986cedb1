//! Files that must not be pushed.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use walarchive_core::archive::SystemId;
use walarchive_core::codec::{Codec, CodecId, Decoder, Encoder, Framer};
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::source::WalFile;

use crate::support::*;

async fn refused_push(bench: &Bench, text: &str, content: &[u8], kind: Kind) -> Error {
    let what = format!("{text} with {} bytes", content.len());
    let error = refused(bench.push("zstd:1", text, content).await, kind, &what);
    assert_eq!(bench.store.take_calls(), [""; 0], "the store is not asked about {what}");
    assert!(error.story().contains(bench.files.path().to_str().unwrap()), "{error:?} names the file");
    error
}

#[test]
fn segments_that_are_not_what_they_seem_are_refused() {
    run(async {
        let bench = Bench::in_memory(true).await;
        let good = segment(SEGMENT, 1);
        let longer = [&good[..], &[0; 8192]].concat();
        for content in [&good[..MIB - 1], &good[..8192], &good[..39], &good[..1], b"", &longer] {
            refused_push(&bench, SEGMENT, content, Kind::Damaged).await;
            refused_push(&bench, &format!("{SEGMENT}.partial"), content, Kind::Damaged).await;
        }
        let other = segment("000000020000000000000124", 1);
        let error = refused_push(&bench, SEGMENT, &other, Kind::Damaged).await;
        assert!(error.story().contains("000000020000000000000124"), "{error:?}");
        let later = segment("000000030000000000000123", 1);
        refused_push(&bench, SEGMENT, &later, Kind::Damaged).await;
        refused_push(&bench, SEGMENT, &vec![0; MIB], Kind::Damaged).await;
        refused_push(&bench, SEGMENT, &noise(1, MIB), Kind::Damaged).await;
        let foreign = segment_of(SEGMENT, SYSTEM + 1, &noise(1, MIB));
        refused_push(&bench, SEGMENT, &foreign, Kind::WrongCluster).await;
        bench.push("zstd:1", SEGMENT, &good).await.unwrap();
    });
}

#[test]
fn texts_that_are_not_what_they_seem_are_refused() {
    run(async {
        let bench = Bench::in_memory(false).await;
        for content in [
            &b""[..],
            b"# nothing but a remark\n",
            b"garbage",
            b"\0\0\0\0",
            b"2\t0/12300028\tits own ancestor\n",
            b"1\t0/xyz\tno position\n",
            &noise(1, 4096),
        ] {
            refused_push(&bench, HISTORY, content, Kind::Damaged).await;
        }
        let endless = [HISTORY_TEXT, &[b'\n'; 2 * MIB]].concat();
        refused_push(&bench, HISTORY, &endless, Kind::Local).await;
        let backup = format!("{SEGMENT}.00000028.backup");
        for content in [&b""[..], b"STOP WAL LOCATION: 0/0\n", b"START WAL LOCATION: \0"] {
            refused_push(&bench, &backup, content, Kind::Damaged).await;
        }
    });
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    run(async {
        let bench = Bench::in_memory(false).await;
        let path = |text: &str| bench.files.path().join(text);
        let push = async |path: PathBuf| {
            let pusher = bench.pusher("zstd:1");
            tokio::time::timeout(Duration::from_secs(10), push_path(&pusher, &path))
                .await
                .expect("a push that waits")
        };
        for text in [SEGMENT, HISTORY, "000000020000000000000123.00000028.backup"] {
            let error = refused(push(path(text)).await, Kind::Local, "nothing there");
            assert!(error.story().contains("cannot read"), "{error:?}");
            fs::create_dir(path(text)).unwrap();
            refused(push(path(text)).await, Kind::Usage, "a directory");
            fs::remove_dir(path(text)).unwrap();
            make_fifo(&path(text));
            refused(push(path(text)).await, Kind::Usage, "a FIFO");
            fs::remove_file(path(text)).unwrap();
            std::os::unix::fs::symlink("/dev/zero", path(text)).unwrap();
            refused(push(path(text)).await, Kind::Usage, "a device");
            fs::remove_file(path(text)).unwrap();
            std::os::unix::fs::symlink("nowhere", path(text)).unwrap();
            refused(push(path(text)).await, Kind::Local, "a link to nowhere");
        }
        assert_eq!(bench.store.take_calls(), [""; 0]);
        // Data directories may keep their WAL behind a link.
        bench.file("content", &segment(SEGMENT, 1));
        fs::remove_file(path(SEGMENT)).unwrap();
        std::os::unix::fs::symlink("content", path(SEGMENT)).unwrap();
        push(path(SEGMENT)).await.unwrap();
    });
}

fn make_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_file_of_no_known_cluster_is_refused() {
    run(async {
        let bench = Bench::in_memory(false).await;
        let mut push = bench.pusher("zstd:1");
        push.system = None;
        let error = refused(
            push_path(&push, &bench.file(HISTORY, HISTORY_TEXT)).await,
            Kind::Usage,
            "a history that is not in a data directory",
        );
        assert!(error.story().contains("--system-id"), "{error:?}");
        assert_eq!(bench.store.take_calls(), [""; 0]);
        let pushed = push_path(&push, &bench.file(SEGMENT, &segment(SEGMENT, 1))).await.unwrap();
        assert_eq!(pushed.system, SystemId(SYSTEM), "a segment says it itself");
    });
}

/// What happens to a file while it is read.
type Change = Box<dyn Fn(&Path) + Send + Sync>;

/// A codec under which the file that is pushed changes when its first bytes have been read.
struct Meanwhile {
    path: PathBuf,
    change: Change,
    done: AtomicBool,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Debug)]
struct Shared(Arc<Meanwhile>);

struct Watched {
    inner: Box<dyn Encoder>,
    meanwhile: Arc<Meanwhile>,
}

impl Codec for Shared {
    fn id(&self) -> CodecId {
        CodecId::Zstd
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(Watched { inner: codec("zstd:1").encoder()?, meanwhile: self.0.clone() }))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        codec("zstd:1").decoder()
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        codec("zstd:1").framer()
    }
}

impl Encoder for Watched {
    fn push(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if !self.meanwhile.done.swap(true, Ordering::Relaxed) {
            (self.meanwhile.change)(&self.meanwhile.path);
        }
        self.inner.push(plain, out)
    }

    fn finish(self: Box<Self>, out: &mut Vec<u8>) -> Result<()> {
        self.inner.finish(out)
    }
}

fn open(path: &Path) -> fs::File {
    fs::OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_stored() {
    run(async {
        let changes: Vec<(&str, Change)> = vec![
            (
                "grows",
                Box::new(|path| {
                    let mut file = open(path);
                    file.seek(SeekFrom::End(0)).unwrap();
                    file.write_all(b"more").unwrap();
                }),
            ),
            ("shrinks", Box::new(|path| open(path).set_len(MIB as u64 / 2).unwrap())),
            ("is emptied", Box::new(|path| open(path).set_len(0).unwrap())),
            (
                "is overwritten",
                Box::new(|path| {
                    let mut file = open(path);
                    file.seek(SeekFrom::Start(MIB as u64 - 100)).unwrap();
                    file.write_all(b"recycled").unwrap();
                }),
            ),
        ];
        for (what, change) in changes {
            let bench = Bench::in_memory(true).await;
            let path = bench.file(SEGMENT, &segment(SEGMENT, 1));
            // File systems count time in ticks: the change falls into a later one.
            open(&path).set_modified(std::time::SystemTime::now() - Duration::from_secs(1)).unwrap();
            let mut push = bench.pusher("zstd:1");
            let meanwhile = Meanwhile { path: path.clone(), change, done: AtomicBool::new(false) };
            push.codec = Arc::new(Shared(Arc::new(meanwhile)));
            let error = refused(push_path(&push, &path).await, Kind::Local, what);
            assert!(error.story().contains("changed while it was read"), "{what}: {error:?}");
            assert_eq!(bench.store.take_calls(), [""; 0], "{what}");
        }
    });
}

/// Another process writes all the time: what is stored is one of the contents that the file had.
#[test]
fn a_file_that_is_written_all_the_time_is_refused_or_consistent() {
    run(async {
        let bench = Bench::in_memory(false).await;
        let contents = [segment_of(SEGMENT, SYSTEM, b"A"), segment_of(SEGMENT, SYSTEM, b"B")];
        let path = bench.file(SEGMENT, &contents[0]);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (contents, path, stop) = (contents.clone(), path.clone(), stop.clone());
            std::thread::spawn(move || {
                for content in contents.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    open(&path).write_all(content).unwrap();
                    std::thread::sleep(Duration::from_micros(700));
                }
            })
        };
        let mut outcomes = (0, 0);
        for round in 0..150 {
            let mut push = bench.pusher("none");
            push.cluster = format!("round{round}").parse().unwrap();
            let file = WalFile { name: name(SEGMENT), path: path.clone() };
            match push.run(&file).await {
                Ok(pushed) => {
                    let kind = walarchive_core::archive::ObjectKind::Wal;
                    let read = bench.archive.read(&pushed.key, kind, MIB as u64, Vec::new()).await.unwrap();
                    assert!(contents.contains(&read.0), "round {round}: a mixture was stored");
                    outcomes.0 += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Local, "{error:?}");
                    outcomes.1 += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert_eq!(outcomes.0 + outcomes.1, 150);
    });
}
