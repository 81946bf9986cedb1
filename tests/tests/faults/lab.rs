//! One archive on a real store, a clean way to it, and any number of ways through fault proxies.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use walarchive_tests::proxy::{Proxy, Rule, Seen};
use walarchive_tests::sample::{self, segment, segment_name};
use walarchive_tests::stores::{self, Bucket};
use walarchive_tests::{Options, Output, Product, Scratch, kill_tree};

/// The longest that connecting, waiting for an answer, and silence may take.
pub const TIMEOUT: Duration = Duration::from_millis(1000);
/// For what a loaded machine adds.
pub const SLACK: Duration = Duration::from_secs(15);
/// When a program hangs rather than waits.
const FAR_TOO_LONG: Duration = Duration::from_secs(90);

/// An archive on SeaweedFS.
pub struct Lab {
    pub scratch: Scratch,
    pub bucket: Bucket,
    /// Straight to the store.
    pub clean: Product,
    next: AtomicU32,
    segments: AtomicU32,
}

/// A way to the archive through a proxy.
pub struct Line {
    pub proxy: Proxy,
    pub product: Product,
}

/// What a program did behind a proxy.
#[derive(Debug)]
pub struct Run {
    pub output: Output,
    pub took: Duration,
    pub log: Vec<Seen>,
    /// How often the script was applied.
    pub applied: usize,
}

impl Lab {
    /// A new archive; `None`, after a loud note, when there is no SeaweedFS.
    pub fn new() -> Option<Lab> {
        let scratch = Scratch::new();
        let bucket = stores::seaweed(&scratch)?;
        Some(Lab::on(scratch, bucket))
    }

    /// A new archive in a bucket.
    pub fn on(scratch: Scratch, bucket: Bucket) -> Lab {
        let options = Options { init: false, archive: Some(bucket.url()), ..Options::default() };
        let mut clean = Product::with(&scratch, options);
        aim(&mut clean, &bucket);
        clean.set("WALARCHIVE_SYSTEM_ID", &sample::SYSTEM_ID.to_string());
        clean.ok(&["init"]);
        Lab { scratch, bucket, clean, next: AtomicU32::new(1), segments: AtomicU32::new(1) }
    }

    /// The number of a segment that is new.
    pub fn fresh_segment(&self) -> u32 {
        let number = self.segments.fetch_add(1, Ordering::Relaxed);
        assert!(number < 3000, "there are no more than 4096 of 1 MiB with these names");
        number
    }

    /// A number that nobody had before.
    pub fn fresh(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Through a proxy of its own, with that budget for all tries together.
    pub fn line(&self, budget: Duration) -> Line {
        let addr = self.bucket.server().addr().parse().expect("the address of the store");
        let proxy = Proxy::start(addr);
        let mut product = self.clean.clone();
        aim(&mut product, &self.bucket.with_endpoint(&proxy.addr().to_string()));
        impatient(&mut product, budget);
        Line { proxy, product }
    }

    /// Writes segment `number` with a content that depends on `seed`, as the server would; its path and name.
    pub fn write(&self, number: u32, seed: u64) -> (String, String) {
        let name = segment_name(1, number);
        let dir = format!("seed{seed}-{number}");
        self.scratch.dir(&dir);
        let path = self.scratch.write(format!("{dir}/{name}"), segment(1, number, seed));
        (path.display().to_string(), name)
    }

    /// What the archive gives for `name` through the clean way; `None`: proven absent.
    pub fn stored(&self, name: &str) -> Option<Vec<u8>> {
        let (dir, output) = self.fetch(&self.clean, name);
        let content = fs::read(dir.join("dest")).ok();
        let _ = fs::remove_dir_all(dir);
        match output.code {
            Some(0) => Some(content.expect("a fetched file")),
            Some(1) => None,
            _ => panic!("{name} cannot be read back: {output:#?}"),
        }
    }

    /// Fetches into a new directory.
    pub fn fetch(&self, product: &Product, name: &str) -> (PathBuf, Output) {
        let dir = self.scratch.dir(format!("fetch{}", self.fresh()));
        let mut command = product.command_of("walarchive-fetch", &[name, "dest"]);
        let output = Output::of(&command.current_dir(&dir).output().expect("run walarchive-fetch"));
        (dir, output)
    }
}

impl Line {
    /// Runs a command under a script, which is cleared afterwards.
    pub fn run(&self, script: impl IntoIterator<Item = Rule>, mut command: Command) -> Run {
        self.proxy.set(script);
        self.proxy.take_log();
        let begun = Instant::now();
        let output = bounded(&mut command);
        let (took, applied, log) = (begun.elapsed(), self.proxy.applied(), self.proxy.take_log());
        self.proxy.clear();
        Run { output, took, log, applied }
    }

    /// Runs `walarchive` under a script.
    pub fn walarchive(&self, script: impl IntoIterator<Item = Rule>, args: &[&str]) -> Run {
        self.run(script, self.product.command(args))
    }
}

impl Run {
    /// The exit code; panics with everything when it is another one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(self.output.code, Some(code), "{self:#?}");
        self
    }

    /// Panics with everything when it took longer.
    #[track_caller]
    pub fn within(self, limit: Duration) -> Run {
        assert!(self.took < limit, "{limit:?} were allowed: {self:#?}");
        self
    }

    /// The requests with a method.
    pub fn requests(&self, method: &str) -> Vec<&Seen> {
        self.log.iter().filter(|seen| seen.method == method).collect()
    }
}

/// Runs a command, and kills it when it takes so long that something is wrong.
fn bounded(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id();
    let (done, ended) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if ended.recv_timeout(FAR_TOO_LONG) == Err(RecvTimeoutError::Timeout) {
            kill_tree(pid);
        }
    });
    let output = child.wait_with_output().expect("wait for a program");
    drop(done);
    watch.join().expect("the watch ends");
    Output::of(&output)
}

/// Points the programs at a bucket.
pub fn aim(product: &mut Product, bucket: &Bucket) {
    product.set("WALARCHIVE_ARCHIVE", &bucket.url());
    bucket.env().iter().for_each(|(name, value)| product.set(name, value));
}

/// Gives the programs short timeouts, and this budget.
pub fn impatient(product: &mut Product, budget: Duration) {
    let duration = |time: Duration| format!("{}ms", time.as_millis());
    for name in ["WALARCHIVE_RETRY_BUDGET", "WALARCHIVE_STORE_RETRY_BUDGET"] {
        product.set(name, &duration(budget));
    }
    for name in ["CONNECT", "FIRST_BYTE", "STALL"] {
        product.set(&format!("WALARCHIVE_STORE_{name}_TIMEOUT"), &duration(TIMEOUT));
    }
}
