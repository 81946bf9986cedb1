//! The state of an earlier backup.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{COMMITTED, Header, Numbered, RUNNING, Remembered, Trailer, VERSION, frame};
use crate::archive::PackRecord;
use crate::error::Result;
use crate::files;
use crate::wal::Lsn;

/// What an earlier backup has stored. Files are looked up by their paths; what is in memory is small.
pub(in crate::ops::backup) struct State {
    pub(in crate::ops::backup) header: Header,
    /// Where the backup ended; `None` if it was cut off.
    pub(in crate::ops::backup) stop: Option<Lsn>,
    /// Packs, by the number that extents have for them.
    pub(in crate::ops::backup) packs: HashMap<u32, PackRecord>,
    /// How many pages of its files are in each.
    pub(in crate::ops::backup) used: HashMap<u32, u64>,
    file: File,
    path: PathBuf,
    /// Where in the file the frames are, by a hash of the path. A file whose hash is taken is not found.
    index: HashMap<u64, u64>,
    hasher: RandomState,
}

impl State {
    /// The state of the last backup that was committed; `None` if there is none that can be used.
    pub(in crate::ops::backup) fn committed(dir: &Path) -> Result<Option<State>> {
        let path = dir.join(COMMITTED);
        match File::open(&path) {
            Ok(file) => State::read(file, path).map(|state| state.filter(|state| state.stop.is_some())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(super::failed(Some(&path), error)),
        }
    }

    /// The state of the newest backup that was cut off. Older ones are removed; those of running backups are left alone.
    pub(in crate::ops::backup) fn cut_off(dir: &Path) -> Result<Option<State>> {
        let mut newest: Option<State> = None;
        for path in files::list(dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with(RUNNING) {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            match State::read(file, path.clone())? {
                Some(state) if newest.as_ref().is_none_or(|newest| newest.header.id < state.header.id) => {
                    if let Some(older) = newest.replace(state) {
                        older.remove()?;
                    }
                }
                _ => files::remove(&path)?,
            }
        }
        Ok(newest)
    }

    /// The state is of no use any more.
    pub(in crate::ops::backup) fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(super::failed(Some(&self.path), error)),
            _ => Ok(()),
        }
    }

    /// Reads all frames that hold; what was cut off within the last one does not count. `None` for what is no state.
    fn read(file: File, path: PathBuf) -> Result<Option<State>> {
        let failed = |error| super::failed(Some(&path), error);
        let mut reader = BufReader::with_capacity(1 << 20, file.try_clone().map_err(failed)?);
        let mut state: Option<State> = None;
        let (mut head, mut payload, mut at) = ([0; frame::HEAD], Vec::new(), 0_u64);
        while reader.read_exact(&mut head).is_ok() {
            let Some((tag, len)) = frame::parse(&head) else { break };
            payload.resize(len as usize, 0);
            if reader.read_exact(&mut payload).is_err() || !frame::holds(&head, &payload) {
                break;
            }
            match &mut state {
                None => match serde_json::from_slice::<Header>(&payload) {
                    Ok(header) if tag == frame::HEADER && header.version == VERSION => {
                        state = Some(State {
                            header,
                            stop: None,
                            packs: HashMap::new(),
                            used: HashMap::new(),
                            file: file.try_clone().map_err(failed)?,
                            path: path.clone(),
                            index: HashMap::new(),
                            hasher: RandomState::new(),
                        });
                    }
                    _ => return Ok(None),
                },
                Some(state) => state.take(tag, &payload, at),
            }
            at += (frame::HEAD + payload.len()) as u64;
        }
        Ok(state)
    }

    fn take(&mut self, tag: u8, payload: &[u8], at: u64) {
        match tag {
            frame::PACK => {
                if let Ok(Numbered { number, pack }) = serde_json::from_slice(payload) {
                    self.packs.insert(number, pack);
                }
            }
            frame::TRAILER => self.stop = serde_json::from_slice(payload).ok().map(|end: Trailer| end.stop),
            _ => {
                if let Some(file) = frame::file(tag, payload) {
                    for extent in file.record.extents.iter() {
                        *self.used.entry(extent.pack).or_default() += u64::from(extent.count);
                    }
                    self.index.insert(self.hasher.hash_one(&file.record.path), at);
                }
            }
        }
    }

    /// A file; `None` if the backup does not have it, or its frame does not hold any more.
    pub(in crate::ops::backup) fn find(&self, path: &Path) -> Option<Remembered> {
        let at = *self.index.get(&self.hasher.hash_one(path))?;
        let mut head = [0; frame::HEAD];
        self.file.read_exact_at(&mut head, at).ok()?;
        let (tag, len) = frame::parse(&head)?;
        let mut payload = vec![0; len as usize];
        self.file.read_exact_at(&mut payload, at + frame::HEAD as u64).ok()?;
        let file = frame::holds(&head, &payload).then(|| frame::file(tag, &payload))??;
        (file.record.path == path).then_some(file)
    }
}
