//! The library as other programs use it: its examples, run; its calls, on a real server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use walarchive_core::archive::Keys;
use walarchive_core::cipher::age::read_identity_file;
use walarchive_core::ops::restore::Target;
use walarchive_core::postgres::conninfo::ConnInfo;
use walarchive_core::progress::{Cancel, Progress};
use walarchive_core::storage::{self, MemoryStorage, StoreOptions};
use walarchive_core::{Archive, Blocking, Cluster as Archived, Kind, Result};
use walarchive_tests::sample::{SYSTEM_ID, segment, segment_name};
use walarchive_tests::{
    Cluster, Options, Output, Product, Scratch, conformance, example, outside, verify_backup,
};

/// The store of the example, held to the contract of every store.
#[allow(dead_code)]
#[path = "../../walarchive-core/examples/own_storage.rs"]
mod own_storage;

/// An example, run as users run it.
fn run(scratch: &Scratch, name: &str, args: &[&str]) -> Output {
    run_at(scratch, &example(name), args)
}

fn run_at(scratch: &Scratch, program: &Path, args: &[&str]) -> Output {
    let copy = scratch.join(program.file_name().unwrap());
    fs::copy(program, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    Output::of(&scratch.command(&copy).args(args).output().unwrap())
}

fn text(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

/// A made-up segment in a file, and its content.
fn made_up(scratch: &Scratch) -> (String, Vec<u8>) {
    let content = segment(1, 7, 42);
    (text(scratch.write(segment_name(1, 7), &content)), content)
}

#[test]
fn the_example_of_push_and_fetch_brings_a_segment_back() {
    let scratch = Scratch::new();
    let (file, content) = made_up(&scratch);
    let (url, copy) = (format!("file://{}", text(scratch.join("archive"))), text(scratch.join("copy")));
    let run = run(&scratch, "push_and_fetch", &[&url, &file, &copy]);
    assert!(run.code == Some(0) && run.stdout.contains(&SYSTEM_ID.to_string()), "{run:#?}");
    assert!(fs::read(copy).unwrap() == content);
    assert!(scratch.join("archive/archive.json").exists());
}

#[test]
fn a_program_outside_embeds_the_library_without_stores_and_codecs_that_it_does_not_need() {
    let scratch = Scratch::new();
    let (file, content) = made_up(&scratch);
    let (url, copy) = (format!("file://{}", text(scratch.join("archive"))), text(scratch.join("copy")));
    let program = outside();
    let run = run_at(&scratch, &program, &[&url, &file, &copy]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(fs::read(copy).unwrap() == content);
    for url in ["s3://bucket/a", "gs://bucket/a", "az://container/a", "sftp://host/a"] {
        let run = run_at(&scratch, &program, &[url, &file, "copy"]);
        assert!(
            run.code == Some(1) && run.stderr.contains("this build of walarchive has no stores"),
            "{run:#?}"
        );
    }
    let lock = include_str!("../outside/Cargo.lock");
    for left_out in ["reqwest", "rustls", "russh-sftp", "quick-xml", "liblzma-sys", "lz4-sys", "flate2"] {
        assert!(!lock.contains(&format!("name = \"{left_out}\"")), "{left_out}");
    }
}

#[test]
fn the_example_of_a_storage_brings_a_segment_back() {
    let scratch = Scratch::new();
    let (file, content) = made_up(&scratch);
    let run = run(&scratch, "own_storage", &[&file]);
    assert!(run.code == Some(0) && run.stdout.contains("holds 2 objects"), "{run:#?}");
    assert!(fs::read(format!("{file}.copy")).unwrap() == content);
}

#[tokio::test]
async fn the_storage_of_the_example_keeps_the_contract() {
    let store: conformance::Store = Arc::new(own_storage::InMap::default());
    conformance::a_new_store_is_empty(&store).await;
    conformance::objects_are_created_once(&store).await;
    conformance::one_of_many_creates_wins(&store).await;
    conformance::ranges_are_clipped(&store).await;
    conformance::listings_know_segments(&store).await;
    conformance::long_listings_are_complete(&store).await;
    conformance::absent_objects_are_absent(&store).await;
    conformance::uploads_show_when_finished(&store).await;
    conformance::uploads_that_end_without_finish_show_nothing(&store).await;
    conformance::parts_come_at_once_and_in_any_order(&store).await;
    conformance::finishing_again_is_success(&store).await;
    conformance::unfinished_uploads_are_swept(&store).await;
}

#[test]
fn what_the_example_of_a_codec_wrote_is_read_by_the_programs() {
    let scratch = Scratch::new();
    let (file, content) = made_up(&scratch);
    let product = Product::with(&scratch, Options { encrypted: false, ..Options::default() });
    let url = format!("file://{}", text(product.archive_dir()));
    let run = run(&scratch, "own_codec", &[&url, &file]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let shown = product.json(&["wal", "show", &segment_name(1, 7)]);
    assert_eq!(shown["codec"], "gzip", "{shown}");
    let copy = text(scratch.join("copy"));
    product.ok(&["wal", "fetch", &segment_name(1, 7), &copy]);
    assert!(fs::read(copy).unwrap() == content);
}

#[test]
fn the_example_of_a_restore_makes_a_cluster_that_starts() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.psql("create table t as select generate_series(1, 1000) as n");
    let (url, target) = (format!("file://{}", text(product.archive_dir())), scratch.join("restored"));
    let args = [&url, &text(product.identity_file()), &cluster.conninfo(), &text(target.clone())];
    let run = run(&scratch, "backup_and_restore", &args.map(String::as_str));
    assert!(run.code == Some(0) && run.stdout.contains("bytes hold: true"), "{run:#?}");
    // Its restore_command needs the programs and their settings.
    let builder = Cluster::adopt(&scratch).env_of(&product).env("PATH", &product.path_variable());
    let mut restored = builder.existing(target).unwrap();
    restored.start_promoted();
    assert_eq!(restored.psql("select count(*) from t"), "1000");
}

/// Counts, and asks for an end after so many bytes.
struct EndsAfter {
    bytes: u64,
    seen: AtomicU64,
    cancel: Cancel,
}

impl Progress for EndsAfter {
    fn begin(&self, _: &str, _: u64) {}

    fn advance(&self, bytes: u64) -> Result<()> {
        if self.seen.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes {
            self.cancel.cancel();
        }
        self.cancel.check()
    }

    fn note(&self, _: &str) {}

    fn end(&self) {}
}

/// The archive of a product, by the library.
fn opened(blocking: &Blocking, product: &Product) -> Archived {
    let identities = read_identity_file(&product.identity_file()).unwrap();
    let keys = Keys { recipients: vec![identities[0].recipient()], identities, ..Keys::default() };
    let url = format!("file://{}", product.archive_dir().display());
    let archive = blocking.wait(async {
        let store = storage::open(&url, &StoreOptions::default()).await?;
        Archive::open(store, keys).await
    });
    archive.unwrap().cluster("main".parse().unwrap())
}

fn ending(archived: &Archived, bytes: u64) -> Archived {
    let progress = EndsAfter { bytes, seen: AtomicU64::new(0), cancel: Cancel::default() };
    archived.clone().progress(Arc::new(progress))
}

#[test]
fn backups_and_restores_that_are_cancelled_leave_nothing() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::builder(&scratch).wal_segment_mib(1).start() else { return };
    let product = Product::new(&scratch);
    cluster.archive_with(&product);
    cluster.pgbench_init(2);
    let blocking = Blocking::new().unwrap();
    let archived = opened(&blocking, &product).connection(ConnInfo::new(Some(cluster.conninfo())));
    let files = || walarchive_tests::filled::files_below(&product.archive_dir());
    cluster.archive_now();
    for bytes in [0, 5_000_000, 20_000_000] {
        let ended = blocking.wait(ending(&archived, bytes).backup().run());
        assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);
        let left: Vec<_> = files().into_iter().filter(|path| !text(path.clone()).contains("/wal/")).collect();
        assert_eq!(left.len(), 1, "archive.json alone, and the WAL: {left:?}");
    }
    let made = blocking.wait(archived.backup().label("a", "b").run()).unwrap();
    assert_eq!(blocking.wait(archived.backups()).unwrap().len(), 1);
    let target = scratch.join("restored");
    let restore = |archived: &Archived| {
        blocking.wait(async {
            archived.restore(&target, "walarchive-fetch %f %p").await?.to(Target::Immediate).run().await
        })
    };
    let ended = restore(&ending(&archived, 5_000_000));
    assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);
    assert!(!target.join("global/pg_control").exists(), "no server starts from half a cluster");
    fs::remove_dir_all(&target).unwrap();
    let ended = blocking.wait(async { ending(&archived, 1000).verify().deep().run().await });
    let broken_off = ended.unwrap().broken_off.map(|error| error.kind());
    assert_eq!(broken_off, Some(Kind::Cancelled));
    let verified =
        blocking.wait(async { archived.verify().deep().only(made.backup.id).run().await }).unwrap();
    assert!(verified.ok() && verified.bytes > 1_000_000, "{verified:?}");
    restore(&archived).unwrap();
    verify_backup(&scratch, &target);
}

#[test]
fn threads_share_what_waits_for_async_calls() {
    let scratch = Scratch::new();
    let blocking = Blocking::new().unwrap();
    let store = Arc::new(MemoryStorage::new());
    blocking.wait(Archive::init(&*store, false)).unwrap();
    let archived = blocking.wait(Archive::open(store, Keys::default())).unwrap();
    let archived = archived.cluster("main".parse().unwrap());
    std::thread::scope(|scope| {
        for number in 1..=16 {
            let (archived, blocking, scratch) = (&archived, &blocking, &scratch);
            scope.spawn(move || {
                let (name, content) = (segment_name(1, number), segment(1, number, number.into()));
                let file = scratch.write(&name, &content);
                blocking.wait(archived.push(&file)).unwrap();
                let copy = scratch.join(format!("{name}.copy"));
                blocking.wait(archived.fetch(&name.parse().unwrap(), &copy)).unwrap();
                assert!(fs::read(copy).unwrap() == content);
            });
        }
    });
    let wal = blocking.wait(archived.wal()).unwrap();
    assert_eq!(wal.timelines[0].segments, 16, "{wal:?}");
    let absent = blocking.wait(archived.fetch(&segment_name(1, 17).parse().unwrap(), scratch.join("none")));
    assert_eq!(absent.unwrap_err().kind(), Kind::Absent);
}

#[tokio::test]
async fn waiting_in_async_code_is_refused() {
    let blocking = Blocking::new().unwrap();
    let refused = blocking.wait(async { Ok(()) });
    assert_eq!(refused.unwrap_err().kind(), Kind::Usage);
}
