//! pg_dump and pg_dumpall at work, and whether what they gave is whole.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::packing::{Cutter, LARGEST, Making, Packing};
use crate::archive::DumpFormat;
use crate::error::{Error, Result};
use crate::files;
use crate::postgres::client::{Client, Complaints};
use crate::postgres::dump_archive::{CustomCheck, PlainCheck, check_directory};
use crate::progress::Progress;

/// The one stream of a dump that is no directory.
pub(super) const STREAM: &str = "dump";
/// The table of contents of a directory.
const TOC: &str = "toc.dat";
/// What the pipe from pg_dump holds, if the system allows it.
const PIPE: usize = 1 << 20;
/// The pause before a directory is looked at again.
const PAUSE: Duration = Duration::from_millis(20);
/// So much of a file may be on disk behind what is stored already.
const LAG: u64 = 4 << 20;
const LIST_MAX: u64 = 64 << 20;

/// What is dumped by one run of one program.
pub(super) struct Source<'a> {
    pub(super) client: &'a Client,
    pub(super) command: Command,
    pub(super) format: DumpFormat,
    pub(super) of_cluster: bool,
    pub(super) progress: &'a dyn Progress,
}

/// What looks at a stream as it goes by.
enum Check {
    Custom(CustomCheck),
    Plain(PlainCheck),
}

impl Source<'_> {
    /// Stores everything that the program prints. It must end well, and what it printed must be whole.
    pub(super) fn piped(mut self, packing: &mut Packing) -> Result<(Vec<Making>, Complaints)> {
        let mut running = self.client.start(&mut self.command, Stdio::null())?;
        let _ = rustix::pipe::fcntl_setpipe_size(running.output()?, PIPE);
        let mut check = match self.format {
            DumpFormat::Plain => Check::Plain(PlainCheck::default()),
            _ => Check::Custom(CustomCheck::default()),
        };
        let (mut stream, mut cutter) = (Making::new(STREAM), Cutter::new());
        let mut wrong = None;
        loop {
            self.client.stop().check()?;
            let read = cutter.read(running.output()?);
            let read = read.map_err(|error| Error::io("cannot read what pg_dump prints", error))?;
            if read == 0 {
                break;
            }
            let looked = match &mut check {
                Check::Custom(check) if wrong.is_none() => check.push(cutter.latest(read)),
                Check::Custom(_) => Ok(()),
                Check::Plain(check) => {
                    check.push(cutter.latest(read));
                    Ok(())
                }
            };
            // Its own end tells more than what came before.
            wrong = wrong.or(looked.err());
            cutter.cut(false, |chunk| packing.chunk(&mut stream, chunk))?;
            self.progress.advance(read as u64)?;
        }
        let complaints = running.end()?;
        cutter.cut(true, |chunk| packing.chunk(&mut stream, chunk))?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        match check {
            Check::Plain(check) => check.finish(self.of_cluster)?,
            Check::Custom(check) => list(self.client, check.finish()?)?,
        }
        Ok((vec![stream], complaints))
    }

    /// Stores the files that the program writes into `dir`, as they grow, and gives their space back meanwhile.
    pub(super) fn directory(
        mut self,
        dir: &Path,
        packing: &mut Packing,
    ) -> Result<(Vec<Making>, Complaints)> {
        let mut running = self.client.start(&mut self.command, Stdio::null())?;
        let mut follower =
            Follower { dir, files: BTreeMap::new(), cutter: Cutter::new(), progress: self.progress };
        loop {
            self.client.stop().check()?;
            // Asked first: what is there after the end is all.
            let has_ended = running.has_ended()?;
            let moved = follower.look(packing, has_ended)?;
            if has_ended {
                break;
            }
            if !moved {
                std::thread::sleep(PAUSE);
            }
        }
        let complaints = running.end()?;
        follower.check()?;
        let mut listing = self.client.command("pg_restore")?;
        let mut listing = self.client.start(listing.args(["--list", "-Fd"]).arg(dir), Stdio::null())?;
        listing.drain()?;
        self.client.stop().check()?;
        listing.end().map_err(unreadable)?;
        Ok((follower.files.into_values().map(|file| file.stream).collect(), complaints))
    }
}

fn unreadable(error: Error) -> Error {
    Error::damaged("pg_restore cannot read what pg_dump wrote").because(error)
}

/// Has pg_restore read a table of contents. One that was too long to be kept was read by this program alone.
fn list(client: &Client, toc: Vec<u8>) -> Result<()> {
    if toc.is_empty() {
        return Ok(());
    }
    let mut command = client.command("pg_restore")?;
    let mut running = client.start(command.args(["--list", "-Fc"]), Stdio::piped())?;
    running.talk(toc)?;
    running.end().map(drop).map_err(unreadable)
}

/// Reads the files of a directory as they grow.
struct Follower<'a> {
    dir: &'a Path,
    files: BTreeMap<String, Growing>,
    cutter: Cutter,
    progress: &'a dyn Progress,
}

/// A file, as far as it is stored.
struct Growing {
    path: PathBuf,
    seen: u64,
    stored: u64,
    given_back: u64,
    stream: Making,
}

impl Follower<'_> {
    /// Stores what is new; says whether anything was.
    fn look(&mut self, packing: &mut Packing, is_end: bool) -> Result<bool> {
        for path in files::list(self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| Error::bug("pg_dump named a file that is no text"))?.to_owned();
            self.files.entry(name.clone()).or_insert_with(|| Growing {
                path,
                seen: 0,
                stored: 0,
                given_back: 0,
                stream: Making::new(&name),
            });
        }
        let mut moved = false;
        for file in self.files.values_mut() {
            moved |= file.take(&mut self.cutter, packing, is_end, self.progress)?;
        }
        Ok(moved)
    }

    /// Proves that all is there that the table of contents lists.
    fn check(&self) -> Result<()> {
        let toc = self.dir.join(TOC);
        if !self.files.contains_key(TOC) {
            return Err(Error::damaged("the dump is cut off: it has no table of contents"));
        }
        let tails = self.files.iter().map(|(name, file)| (name.clone(), file.stream.tail.clone()));
        let lists = self.files.keys().filter(|name| is_list(name));
        let lists: BTreeMap<String, Vec<u8>> = lists
            .map(|name| Ok((name.clone(), files::read(&self.dir.join(name), LIST_MAX)?)))
            .collect::<Result<_>>()?;
        check_directory(&files::read(&toc, LIST_MAX)?, &tails.collect(), &lists)
    }
}

fn is_list(name: &str) -> bool {
    name.starts_with("blobs") && name.ends_with(".toc")
}

impl Growing {
    fn take(
        &mut self,
        cutter: &mut Cutter,
        packing: &mut Packing,
        is_end: bool,
        progress: &dyn Progress,
    ) -> Result<bool> {
        let failed = |error| Error::io(format!("cannot read {}", self.path.display()), error);
        let size = fs::metadata(&self.path).map_err(failed)?.len();
        let is_worth_it = size != self.seen && size.saturating_sub(self.stored) >= LARGEST as u64;
        if !is_end && !is_worth_it {
            return Ok(false);
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)?;
        let stream = &mut self.stream;
        let mut reader = At { file: &file, at: self.stored };
        while cutter.read(&mut reader).map_err(failed)? > 0 {
            cutter.cut(false, |chunk| packing.chunk(stream, chunk))?;
        }
        if is_end {
            cutter.cut(true, |chunk| packing.chunk(stream, chunk))?;
        }
        // What is no certain chunk yet is read again when the file has grown.
        let stored = reader.at - cutter.forget() as u64;
        progress.advance(stored - self.stored)?;
        (self.stored, self.seen) = (stored, reader.at);
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        if stored - self.given_back > LAG && name != TOC && !is_list(&name) {
            self.given_back = stored - stored % 4096;
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&file, hole, 0, self.given_back);
        }
        Ok(true)
    }
}

struct At<'a> {
    file: &'a fs::File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Options of pg_dump that would take its output, or its connection, away from here.
const OURS: [&str; 13] = [
    "--file",
    "--format",
    "--compress",
    "--jobs",
    "--dbname",
    "--host",
    "--port",
    "--username",
    "--password",
    "--no-password",
    "--create",
    "--version",
    "--help",
];
const OURS_SHORT: &str = "fFZjdhpUWwCV?";

/// Refuses arguments for pg_dump that this program must say by itself.
pub(super) fn check_arguments(arguments: &[String]) -> Result<()> {
    for argument in arguments {
        let long = argument.split('=').next().unwrap_or_default();
        let mut chars = argument.chars();
        let is_short = (chars.next(), chars.next()) != (Some('-'), Some('-'))
            && argument
                .strip_prefix('-')
                .and_then(|rest| rest.chars().next())
                .is_some_and(|c| OURS_SHORT.contains(c));
        if is_short || OURS.contains(&long) {
            return Err(Error::usage(format!("{long} cannot be handed to pg_dump")).hint(
                "formats, connections, jobs and --create are said to walarchive itself; where dumps go is the archive",
            ));
        }
    }
    Ok(())
}
