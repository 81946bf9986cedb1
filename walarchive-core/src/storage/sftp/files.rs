//! Files and directories on the other side.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::sync::SemaphorePermit;

use super::session::{Answer, Failure, Session};

/// Bytes of one request to read or write: every server takes as much.
const CHUNK: usize = 32 << 10;

/// How many requests for one file are on their way: 2 MiB of them, as much as `ssh` lets pass unanswered.
const WINDOW: usize = 64;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// A file, of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

impl Node {
    pub(super) fn of(attributes: &FileAttributes) -> Node {
        // The types of a mode are numbers, not flags: that of a link has all the bits of that of a file.
        match attributes.permissions.map(|mode| mode & 0o170_000) {
            Some(0o040_000) => Node::Directory,
            Some(0o100_000) => Node::File(attributes.len()),
            _ => Node::Other,
        }
    }
}

/// An open file or directory; closed when dropped.
pub(super) struct Open<'a> {
    session: &'a Session,
    handle: String,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // The request goes out at once; nothing hangs on its answer. Without a runtime the connection has ended.
        if tokio::runtime::Handle::try_current().is_ok() {
            let _ = self.session.sftp.close(std::mem::take(&mut self.handle)).now_or_never();
        }
    }
}

/// Counts a handle that the server may have given to nobody.
struct Opening<'a>(Option<&'a Session>);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0 {
            session.forget_one();
        }
    }
}

impl Session {
    /// Opens the file (or, for reading, the directory) `path`.
    pub(super) async fn open(&self, path: &str, flags: OpenFlags) -> Answer<Open<'_>> {
        let permit = self.handles.acquire().await.ok();
        let mut opening = Opening(Some(self));
        let answer = self.ask(self.sftp.open(path, flags, FileAttributes::empty())).await;
        opening.0 = None;
        self.opened(answer?.handle, permit)
    }

    async fn open_directory(&self, path: &str) -> Answer<Open<'_>> {
        let permit = self.handles.acquire().await.ok();
        let mut opening = Opening(Some(self));
        let answer = self.ask(self.sftp.opendir(path)).await;
        opening.0 = None;
        self.opened(answer?.handle, permit)
    }

    fn opened<'a>(&'a self, handle: String, permit: Option<SemaphorePermit<'a>>) -> Answer<Open<'a>> {
        if handle.contains(char::REPLACEMENT_CHARACTER) {
            let found = "the server's handles are not text, which is not supported";
            return Err(Failure::Refused(StatusCode::OpUnsupported, found.to_owned()));
        }
        Ok(Open { session: self, handle, _permit: permit })
    }

    /// What `path` stands for, through symbolic links; `None` when there is no such name.
    pub(super) async fn look(&self, path: &str) -> Answer<Option<Node>> {
        match self.ask(self.sftp.stat(path)).await {
            Ok(found) => Ok(Some(Node::of(&found.attrs))),
            Err(failure) if failure.is_absent() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether the name `path` is taken, be it by a link to nowhere.
    pub(super) async fn is_taken(&self, path: &str) -> Answer<bool> {
        match self.ask(self.sftp.lstat(path)).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_absent() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Makes `path`, or its names if it is a directory, durable.
    pub(super) async fn sync(&self, path: &str) -> Answer<()> {
        self.open(path, OpenFlags::READ).await?.sync().await
    }

    /// Removes a file; one that is not there is gone already.
    pub(super) async fn remove(&self, path: &str) -> Answer<()> {
        match self.ask(self.sftp.remove(path)).await {
            Err(failure) if !failure.is_absent() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Gives the file `from` the name `to`, which must not be taken; whether it keeps its old one, too.
    pub(super) async fn name(&self, from: &str, to: &str) -> Answer<bool> {
        // A server that makes no links refuses to rename onto a name that is taken: so the protocol wants it.
        if self.links {
            self.ask(self.sftp.hardlink(from, to)).await.map(|_| true)
        } else {
            self.ask(self.sftp.rename(from, to)).await.map(|_| false)
        }
    }

    /// Makes a directory, of the mode that the server thinks best unless one is named.
    pub(super) async fn make_directory(&self, path: &str, mode: Option<u32>) -> Answer<()> {
        let attributes = FileAttributes { permissions: mode, ..FileAttributes::empty() };
        self.ask(self.sftp.mkdir(path, attributes)).await.map(drop)
    }

    /// All names in a directory, without `.` and `..`, and what they stand for. A name in characters that are not
    /// UTF-8 is not given as it is, but so that it cannot be taken for that of an object.
    pub(super) async fn names(&self, path: &str) -> Answer<Vec<(String, FileAttributes)>> {
        let directory = self.open_directory(path).await?;
        let mut names = Vec::new();
        loop {
            match self.ask(self.sftp.readdir(directory.handle.as_str())).await {
                Ok(found) => {
                    let found = found.files.into_iter().filter(|file| !matches!(&*file.filename, "." | ".."));
                    names.extend(found.map(|file| (file.filename, file.attrs)));
                }
                Err(Failure::Refused(StatusCode::Eof, _)) => return Ok(names),
                Err(failure) => return Err(failure),
            }
        }
    }
}

impl Open<'_> {
    /// What it is.
    pub(super) async fn look(&self) -> Answer<Node> {
        let found = self.session.ask(self.session.sftp.fstat(self.handle.as_str())).await?;
        Ok(Node::of(&found.attrs))
    }

    /// Makes it durable.
    pub(super) async fn sync(&self) -> Answer<()> {
        self.session.ask_to_sync(self.session.sftp.fsync(self.handle.as_str())).await.map(drop)
    }

    /// Writes `pieces`, in order, from `offset` on.
    pub(super) async fn write(&self, offset: u64, pieces: Vec<Bytes>) -> Answer<()> {
        let chunks = Chunks { pieces: pieces.into_iter(), rest: Bytes::new() };
        let chunks = chunks.scan(offset, |at, chunk| {
            let begin = *at;
            *at += chunk.len() as u64;
            Some((begin, chunk))
        });
        let written = chunks
            .map(|(at, chunk)| self.session.ask(self.session.sftp.write(self.handle.as_str(), at, chunk)));
        stream::iter(written.map(Ok))
            .try_for_each_concurrent(WINDOW, |write| async { write.await.map(drop) })
            .await
    }

    /// The bytes of `range`; fewer when the file ends before it.
    pub(super) async fn read(&self, range: Range<u64>) -> Answer<BytesMut> {
        let starts = (range.start..range.end).step_by(CHUNK);
        let reads = starts.map(|start| self.read_chunk(start, range.end.min(start + CHUNK as u64)));
        let mut reads = stream::iter(reads).buffered(WINDOW);
        let mut bytes = BytesMut::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        while let Some(piece) = reads.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn read_chunk(&self, mut start: u64, end: u64) -> Answer<Vec<u8>> {
        let mut bytes = Vec::new();
        while start < end {
            let length = u32::try_from(end - start).unwrap_or(u32::MAX);
            match self.session.ask(self.session.sftp.read(self.handle.as_str(), start, length)).await {
                Ok(found) if found.data.is_empty() => break,
                Ok(mut found) => {
                    found.data.truncate(length as usize);
                    start += found.data.len() as u64;
                    if bytes.is_empty() { bytes = found.data } else { bytes.append(&mut found.data) }
                }
                Err(Failure::Refused(StatusCode::Eof, _)) => break,
                Err(failure) => return Err(failure),
            }
        }
        Ok(bytes)
    }
}

/// Pieces of any length, cut and put together to chunks.
struct Chunks {
    pieces: std::vec::IntoIter<Bytes>,
    rest: Bytes,
}

impl Iterator for Chunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            if self.rest.is_empty() {
                let Some(piece) = self.pieces.next() else { break };
                self.rest = piece;
            }
            let taken = self.rest.split_to(self.rest.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(&taken);
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_keep_all_bytes_in_order() {
        let lengths = [0, 1, CHUNK - 1, 0, CHUNK, 3 * CHUNK + 7, 5, 0];
        let pieces: Vec<Bytes> = lengths
            .iter()
            .enumerate()
            .map(|(nth, length)| (0..*length).map(|at| (at / 100 + nth * 31) as u8).collect())
            .collect();
        let chunks: Vec<Vec<u8>> =
            Chunks { pieces: pieces.clone().into_iter(), rest: Bytes::new() }.collect();
        assert_eq!(chunks.concat(), pieces.concat());
        let (last, full) = chunks.split_last().unwrap();
        assert!(full.iter().all(|chunk| chunk.len() == CHUNK) && !last.is_empty());
        assert_eq!(Chunks { pieces: vec![Bytes::new()].into_iter(), rest: Bytes::new() }.next(), None);
    }
}
