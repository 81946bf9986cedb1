//! System calls of a command: seen in order, made to fail, or made the last thing that it does.
//!
//! ```no_run
//! # use walarchive_tests::{Product, Scratch, trace::Strace};
//! # let scratch = Scratch::new();
//! # let product = Product::new(&scratch);
//! let Some(strace) = Strace::find() else { return };
//! let traced = strace.run(&scratch, product.command(&["wal", "fetch", "00000002.history", "dest"]));
//! // Dies at the second rename of any of its threads.
//! let killed = strace.kill_at("rename,renameat,renameat2", 2);
//! let traced = killed.run(&scratch, product.command(&["wal", "fetch", "00000002.history", "dest"]));
//! assert_eq!(traced.output.signal, Some(9));
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Output, Scratch, require};

/// What durability is about: opening, writing, syncing, naming and removing files.
pub const FILE_CALLS: &str = "openat,creat,write,pwrite64,writev,pwritev,sendfile,copy_file_range,fsync,fdatasync,\
                              sync_file_range,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

/// One call of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The thread that made it.
    pub thread: u32,
    /// The call's name.
    pub call: String,
    /// The files that it is about: of the descriptors and of the names among its arguments, in their order;
    /// relative names are joined to the directory that they are relative to.
    pub paths: Vec<PathBuf>,
    /// All arguments, as strace prints them.
    pub args: String,
    /// What it returned; `None` when the thread died in it.
    pub result: Option<i64>,
    /// The name of its error.
    pub errno: Option<String>,
    /// The place in the trace where it began.
    pub began: usize,
    /// The place in the trace where it was over.
    pub over: usize,
}

impl Event {
    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        self.errno.is_none() && self.result.is_some()
    }

    /// Whether it was over when `later` began.
    pub fn before(&self, later: &Event) -> bool {
        self.over < later.began
    }

    /// Whether it is one of `calls` (separated by `|`) and has to do with a path that ends in `suffix`.
    pub fn is(&self, calls: &str, suffix: &str) -> bool {
        let about = |path: &PathBuf| path.to_string_lossy().ends_with(suffix);
        calls.split('|').any(|call| call == self.call) && self.paths.iter().any(about)
    }
}

/// What a traced command did.
#[derive(Debug, Clone)]
pub struct Traced {
    /// How it ended and what it printed.
    pub output: Output,
    /// Its calls, in the order in which they began.
    pub events: Vec<Event>,
}

impl Traced {
    /// How often the busiest thread made one of `calls` (separated by commas): the highest number at which
    /// [`Strace::kill_at`] has an effect, since strace counts for each thread.
    pub fn count(&self, calls: &str) -> u32 {
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        let chosen = self.events.iter().filter(|event| calls.split(',').any(|call| call == event.call));
        chosen.for_each(|event| *counts.entry(event.thread).or_default() += 1);
        counts.into_values().max().unwrap_or(0)
    }

    /// The events that [`Event::is`] accepts.
    pub fn all(&self, calls: &str, suffix: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.is(calls, suffix)).collect()
    }
}

/// How to trace.
#[derive(Debug, Clone)]
pub struct Strace {
    program: PathBuf,
    calls: String,
    inject: Vec<String>,
}

impl Strace {
    /// A tracer of [`FILE_CALLS`]: `None`, after a loud note, when strace is not installed.
    pub fn find() -> Option<Strace> {
        Some(Strace { program: require("strace")?, calls: FILE_CALLS.to_owned(), inject: Vec::new() })
    }

    /// Traces these calls (separated by commas) instead.
    #[must_use]
    pub fn calls(mut self, calls: &str) -> Strace {
        calls.clone_into(&mut self.calls);
        self
    }

    /// The same, killing the command instead of the `nth` (from 1) of `calls` (separated by commas) that any of its
    /// threads makes.
    #[must_use]
    pub fn kill_at(&self, calls: &str, nth: u32) -> Strace {
        // The call itself must not happen: an error takes its place, and the signal comes before it is seen.
        self.inject(format!("inject={calls}:error=EIO:signal=KILL:when={nth}"))
    }

    /// The same, failing the `nth` (from 1, counted for each thread) of `calls` with `errno`; `when` may also be
    /// `N+`, which is every one from the N-th.
    #[must_use]
    pub fn fail_at(&self, calls: &str, errno: &str, when: &str) -> Strace {
        self.inject(format!("inject={calls}:error={errno}:when={when}"))
    }

    fn inject(&self, expression: String) -> Strace {
        let mut other = self.clone();
        other.inject.push(expression);
        other
    }

    /// Runs a command, one made by [`Scratch::command`] or [`Product::command`](crate::Product::command), to its end.
    pub fn run(&self, scratch: &Scratch, command: Command) -> Traced {
        let log = tempfile::Builder::new()
            .prefix("strace")
            .tempdir_in(scratch.path())
            .expect("a directory for the log");
        scratch.own(log.path());
        let file = log.path().join("log");
        let output = self.wrap(scratch, &command, &file).output().expect("run strace");
        let text = fs::read(&file).unwrap_or_default();
        Traced { output: Output::of(&output), events: parse(&String::from_utf8_lossy(&text)) }
    }

    /// The same command under strace, which logs to `file`.
    pub fn wrap(&self, scratch: &Scratch, inner: &Command, file: &Path) -> Command {
        let mut command = scratch.command(&self.program);
        command.args(["-f", "-y", "-qq", "-s", "16", "-e", "signal=none", "-o"]).arg(file);
        command.arg("-e").arg(format!("trace={}", self.calls));
        for expression in &self.inject {
            command.arg("-e").arg(expression);
        }
        command.arg("--").arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(inner.get_current_dir().unwrap_or(scratch.path()));
        command
    }
}

/// Reads what `strace -f -y` wrote.
pub fn parse(log: &str) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut unfinished: BTreeMap<u32, (usize, String)> = BTreeMap::new();
    for (place, line) in log.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse::<u32>() else { continue };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (place, start.to_owned()));
        } else if let Some(end) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            let Some((began, start)) = unfinished.remove(&thread) else { continue };
            events.extend(event(thread, &(start + end.1), began, place));
        } else {
            events.extend(event(thread, rest, place, place));
        }
    }
    // What was begun and never over: the thread died in it.
    let end = log.lines().count();
    events.extend(
        unfinished.into_iter().filter_map(|(thread, (began, start))| event(thread, &start, began, end)),
    );
    events.sort_by_key(|event| event.began);
    events
}

fn event(thread: u32, text: &str, began: usize, over: usize) -> Option<Event> {
    let (call, rest) = text.split_once('(')?;
    if call.is_empty() || !call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let (args, outcome) = rest.rsplit_once(" = ").unwrap_or((rest, ""));
    let mut words = outcome.split_whitespace();
    let number = words.next().unwrap_or("?").split('<').next().unwrap_or("?");
    let result = number.parse::<i64>().ok();
    let errno = words.next().filter(|word| result == Some(-1) && word.starts_with('E')).map(str::to_owned);
    let args = args.trim_end().trim_end_matches(')').to_owned();
    Some(Event { thread, call: call.to_owned(), paths: paths(call, &args), args, result, errno, began, over })
}

/// The paths in arguments: `5</a/b>` and `AT_FDCWD</a>, "b"`.
fn paths(call: &str, args: &str) -> Vec<PathBuf> {
    let names_files = !call.contains("write") && !call.contains("send");
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut base: Option<PathBuf> = None;
    let mut rest = args;
    while let Some(at) = rest.find(['<', '"']) {
        let close = if rest.as_bytes()[at] == b'<' { '>' } else { '"' };
        let Some((text, after)) = quoted(&rest[at + 1..], close) else { break };
        rest = after;
        if close == '>' {
            paths.extend(base.take());
            base = Some(PathBuf::from(text));
        } else if names_files {
            let directory = base.take().unwrap_or_default();
            paths.push(directory.join(text));
        }
    }
    paths.extend(base);
    paths
}

/// The text up to the unescaped `close`, with strace's escapes undone, and what follows.
fn quoted(text: &str, close: char) -> Option<(String, &str)> {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == close {
            return Some((String::from_utf8_lossy(&bytes).into_owned(), &text[at + 1..]));
        }
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let (_, escape) = chars.next()?;
        match escape {
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'v' => bytes.push(0x0b),
            'f' => bytes.push(0x0c),
            '0'..='7' => {
                let mut value = escape.to_digit(8)?;
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|(_, next)| next.to_digit(8)) else { break };
                    value = value * 8 + digit;
                    chars.next();
                }
                bytes.push(u8::try_from(value).ok()?);
            }
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    None
}
