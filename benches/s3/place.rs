//! The segments of a batch, a server, and the archives on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_benches::{Batch, Data, file_name, smoke, system_id};
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Options, Product, Scratch};

/// The number of the first segment of all.
const FIRST: usize = 0x100;

/// An archive of its own for everything that stores new segments.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Sealed,
    SealedAtOnce,
    SealedReady,
    Plain,
    PlainAtOnce,
}

pub const KINDS: [Kind; 5] =
    [Kind::Sealed, Kind::SealedAtOnce, Kind::SealedReady, Kind::Plain, Kind::PlainAtOnce];

pub struct Place {
    pub scratch: Scratch,
    pub segments: Vec<PathBuf>,
    pub bucket: Bucket,
    system: String,
    server: PathBuf,
    products: Vec<Product>,
}

impl Place {
    /// `None`, after a loud note, when SeaweedFS is not installed.
    pub fn new(data: &Data, skipped: usize, count: usize) -> Option<Place> {
        let scratch = Scratch::new();
        // A server of its own: with it everything that is stored goes away.
        let bucket = stores::alone(&scratch, stores::Kind::Seaweed)?;
        let server = scratch.dir("server");
        let pg_wal = server.join("pg_wal");
        let status = pg_wal.join("archive_status");
        fs::create_dir_all(&status).expect("make pg_wal");
        let segments = Batch::new((FIRST + skipped) as u64, count).write(data, &pg_wal);
        for segment in &segments {
            fs::write(status.join(format!("{}.ready", file_name(segment))), "").expect("write a status file");
        }
        scratch.own(&server);
        scratch.dir("fetched");
        let products = KINDS.map(|kind| product(&scratch, &bucket, kind)).into();
        let system = system_id(&segments[0]).to_string();
        Some(Place { scratch, segments, bucket, system, server, products })
    }

    pub fn push(&self, kind: Kind, segment: &Path) -> Command {
        let mut command = self.product(kind).command_of("walarchive-push", &[]);
        command.arg(segment);
        command
    }

    pub fn push_ready(&self) -> Command {
        let mut command = self.product(Kind::SealedReady).command(&["--quiet", "wal", "push", "--ready"]);
        command.arg(&self.server);
        command
    }

    /// As in recovery, where the system identifier is that of the data directory.
    pub fn fetch(&self, kind: Kind, segment: &Path) -> Command {
        let mut command = self.product(kind).command_of("walarchive-fetch", &[&file_name(segment)]);
        command.arg(self.fetched(segment)).env("WALARCHIVE_SYSTEM_ID", &self.system);
        command
    }

    /// Looks at what was fetched, and removes it.
    pub fn check_fetched(&self, segment: &Path) {
        let fetched = self.fetched(segment);
        if smoke() {
            let (got, wanted) = (fs::read(&fetched), fs::read(segment));
            assert!(got.expect("the fetched file") == wanted.expect("a segment"), "{fetched:?} is another");
        }
        fs::remove_file(&fetched).expect("the fetched file");
    }

    /// A segment that is not stored yet: what a segment of the batch is on the next timeline.
    pub fn one_more(&self, segment: &Path) -> PathBuf {
        let path = self.scratch.join(file_name(segment).replacen("00000001", "00000002", 1));
        let mut content = fs::read(segment).expect("a segment");
        content[4] = 2;
        fs::write(&path, content).expect("write a segment");
        self.scratch.own(&path);
        path
    }

    pub fn fetched(&self, segment: &Path) -> PathBuf {
        self.scratch.join("fetched").join(file_name(segment))
    }

    fn product(&self, kind: Kind) -> &Product {
        &self.products[kind as usize]
    }
}

fn product(scratch: &Scratch, bucket: &Bucket, kind: Kind) -> Product {
    let encrypted = !matches!(kind, Kind::Plain | Kind::PlainAtOnce);
    let url = bucket.with_prefix(&format!("archives/{}", kind as usize)).url();
    let options = Options { encrypted, init: false, archive: Some(url), ..Options::default() };
    let mut product = Product::with(scratch, options);
    bucket.env().iter().for_each(|(name, value)| product.set(name, value));
    product.ok(if encrypted { &["init"] } else { &["init", "--no-encryption"] });
    product
}
