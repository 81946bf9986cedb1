//! The product's programs, as users run them, with an archive of their own.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use serde_json::Value;

use crate::Scratch;
use crate::programs::{target_dir, workspace};

const PROGRAMS: [&str; 3] = ["walarchive", "walarchive-push", "walarchive-fetch"];

/// What a program of the product did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it printed as result.
    pub stdout: String,
    /// What it printed besides.
    pub stderr: String,
}

impl Output {
    /// The output of a finished process.
    pub fn of(output: &process::Output) -> Output {
        Output {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON document on stdout; panics with everything when there is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON on stdout: {error}\n{self:#?}"))
    }
}

/// How the archive shall be; all defaults are those of [`Product::new`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Make an identity and encrypt for it.
    pub encrypted: bool,
    /// Make the archive with `init`.
    pub init: bool,
    /// Where; a directory in the scratch directory when nothing is said.
    pub archive: Option<String>,
    /// The cluster's name.
    pub cluster: String,
}

impl Default for Options {
    fn default() -> Options {
        Options { encrypted: true, init: true, archive: None, cluster: "main".to_owned() }
    }
}

/// The product's programs with an environment that names one archive.
#[derive(Debug, Clone)]
pub struct Product {
    scratch: Scratch,
    programs: Arc<Programs>,
    env: Vec<(String, String)>,
    home: PathBuf,
}

impl Product {
    /// With a new, encrypted archive in a directory, and the identity that opens it.
    pub fn new(scratch: &Scratch) -> Product {
        Product::with(scratch, Options::default())
    }

    /// With a new archive.
    pub fn with(scratch: &Scratch, options: Options) -> Product {
        let home = scratch.dir(format!("product{}", next()));
        let archive = options.archive.unwrap_or_else(|| format!("file://{}/archive", home.display()));
        let mut product = Product { scratch: scratch.clone(), programs: programs(), env: Vec::new(), home };
        product.set("WALARCHIVE_ARCHIVE", &archive);
        product.set("WALARCHIVE_CLUSTER", &options.cluster);
        let state = product.home.join("state").display().to_string();
        product.set("WALARCHIVE_STATE_DIR", &state);
        if options.encrypted {
            product.make_identity();
        }
        if options.init {
            let plain: &[&str] = if options.encrypted { &[] } else { &["--no-encryption"] };
            product.ok(&[&["init"], plain].concat());
        }
        product
    }

    fn make_identity(&mut self) {
        let file = self.identity_file().display().to_string();
        self.ok(&["key", "generate", "-o", &file]);
        let shown = self.ok(&["key", "show", &file]);
        let recipient =
            shown.split(|c: char| c.is_whitespace() || c == '"').find(|word| word.starts_with("age1"));
        let recipient =
            recipient.unwrap_or_else(|| panic!("`key show` showed no recipient: {shown}")).to_owned();
        self.set("WALARCHIVE_RECIPIENTS", &recipient);
        self.set("WALARCHIVE_IDENTITY_FILE", &file);
    }

    /// Sets, or replaces, a variable of the programs' environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Takes a variable out of the programs' environment.
    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// The same, with one variable set to something else.
    #[must_use]
    pub fn but(&self, name: &str, value: &str) -> Product {
        let mut other = self.clone();
        other.set(name, value);
        other
    }

    /// Where the programs remember things.
    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    /// The variables that the programs get.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The identity's file; there only when the archive is encrypted.
    pub fn identity_file(&self) -> PathBuf {
        self.home.join("identity.txt")
    }

    /// The archive's directory, unless it was placed elsewhere.
    pub fn archive_dir(&self) -> PathBuf {
        self.home.join("archive")
    }

    /// The path of one of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.dir.join(name)
    }

    /// A `PATH` that has the programs, and those of the server that the tests were told to use.
    pub fn path_variable(&self) -> String {
        let server = env::var("WALARCHIVE_TEST_PG").map(|dir| format!("{dir}:")).unwrap_or_default();
        format!("{}:{server}{}", self.programs.dir.display(), env::var("PATH").unwrap_or_default())
    }

    /// A command of `walarchive`, ready to run.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of("walarchive", args)
    }

    /// A command of any of the programs, ready to run.
    pub fn command_of(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.scratch.command(self.program(program));
        command.env("PATH", self.path_variable()).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(args);
        command
    }

    /// Runs `walarchive`, however it ends.
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_of("walarchive", args)
    }

    /// Runs any of the programs, however it ends.
    pub fn run_of(&self, program: &str, args: &[&str]) -> Output {
        let mut command = self.command_of(program, args);
        Output::of(&command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}")))
    }

    /// Runs `walarchive`; its stdout. Panics with everything when it does not exit 0.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, Some(0), "walarchive {args:?} failed:\n{}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Runs `walarchive --json`; the document. Panics with everything when it does not exit 0.
    pub fn json(&self, args: &[&str]) -> Value {
        let args = [&["--json"], args].concat();
        let stdout = self.ok(&args);
        serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("walarchive {args:?}: {error}:\n{stdout}"))
    }

    /// A script that runs one of the programs with this environment: what a server's `archive_command` calls.
    pub fn script(&self, program: &str) -> PathBuf {
        let mut text = String::from("#!/bin/sh\n");
        for (name, value) in &self.env {
            text.push_str(&format!("export {name}={}\n", quote(value)));
        }
        text.push_str(&format!("exec {} \"$@\"\n", quote(&self.program(program).display().to_string())));
        let path = self.scratch.write(format!("{program}-{}.sh", next()), text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("make the script executable");
        path
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn next() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where the built programs are: in cargo's directory, or a copy where the unprivileged user can reach them.
#[derive(Debug)]
struct Programs {
    dir: PathBuf,
    _copy: Option<Scratch>,
}

/// The programs, built once per process; a copy of them lives as long as somebody uses it.
fn programs() -> Arc<Programs> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    static SHARED: Mutex<Weak<Programs>> = Mutex::new(Weak::new());
    let built = BUILT.get_or_init(build);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(programs) = shared.upgrade() {
        return programs;
    }
    let programs = Arc::new(reachable(built));
    *shared = Arc::downgrade(&programs);
    programs
}

/// An example of the library, built.
pub fn example(name: &str) -> PathBuf {
    build().join("examples").join(name)
}

/// A library of the C interface, built.
pub fn library(name: &str) -> PathBuf {
    build().join(name)
}

/// The program outside the workspace that embeds the library as small as it can be, built.
pub fn outside() -> PathBuf {
    let target = target_dir().join("outside");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    command.current_dir(workspace().join("tests/outside")).args(["build", "--quiet", "--locked"]);
    let output = command.arg("--target-dir").arg(&target).output().expect("run cargo");
    assert!(output.status.success(), "building it: {}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/outside")
}

/// Builds the programs and examples with the profile of the tests; `$WALARCHIVE_TEST_BIN` names a directory of ready ones.
fn build() -> PathBuf {
    if let Some(dir) = env::var_os("WALARCHIVE_TEST_BIN") {
        return PathBuf::from(dir);
    }
    let release = !cfg!(debug_assertions);
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    command.current_dir(workspace()).args(["build", "--quiet", "--locked", "--bins", "--examples"]);
    command.args([
        "--lib",
        "--package",
        "walarchive-cli",
        "--package",
        "walarchive-core",
        "--package",
        "walarchive-ffi",
    ]);
    command.args(release.then_some("--release"));
    let output = command.output().expect("run cargo");
    assert!(output.status.success(), "building the product: {}", String::from_utf8_lossy(&output.stderr));
    target_dir().join(if release { "release" } else { "debug" })
}

fn reachable(built: &Path) -> Programs {
    let probe = Scratch::new();
    let reached = |name: &str| {
        let status = probe.command("/usr/bin/test").arg("-x").arg(built.join(name)).status();
        status.is_ok_and(|status| status.success())
    };
    if PROGRAMS.iter().all(|name| reached(name)) {
        return Programs { dir: built.to_owned(), _copy: None };
    }
    for name in PROGRAMS {
        let copy = probe.join(name);
        fs::copy(built.join(name), &copy).unwrap_or_else(|error| panic!("copy {name}: {error}"));
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("make the copy executable");
    }
    Programs { dir: probe.path().to_owned(), _copy: Some(probe) }
}
