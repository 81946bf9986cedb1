//! A large object under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use russh_sftp::protocol::OpenFlags;

use super::files::Node;
use super::link::{Link, above};
use super::session::{Answer, Failure, Session};
use super::{path, written};
use crate::error::{Error, Kind, Result};
use crate::storage::Upload;

/// A file that parts are written into, each at its place. A part is synced before it counts as stored: the server may
/// start anew before the last one comes.
pub(super) struct SftpUpload {
    link: Arc<Link>,
    key: String,
    /// The file's name below the root.
    staged: String,
    part_size: usize,
    /// The lengths of the parts that are stored.
    stored: Mutex<BTreeMap<usize, usize>>,
}

impl SftpUpload {
    pub(super) fn new(link: Arc<Link>, key: &str, staged: String, part_size: usize) -> SftpUpload {
        SftpUpload { link, key: key.to_owned(), staged, part_size, stored: Mutex::default() }
    }

    /// The length of the object, if all its parts are stored.
    fn length(&self) -> Result<u64> {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let last = stored.len().saturating_sub(1);
        for (nth, (number, length)) in stored.iter().enumerate() {
            if nth != *number || (nth != last && *length != self.part_size) {
                let message = format!("finishing the upload of {}: part {nth} is missing or short", self.key);
                return Err(Error::bug(message).on(&self.key));
            }
        }
        Ok(stored.values().map(|length| *length as u64).sum())
    }

    async fn name(&self, session: &Session, length: u64) -> Result<()> {
        let (staged, path) = (path(session, &self.staged), path(session, &self.key));
        let synced = async {
            let file = session.open(&staged, OpenFlags::READ).await?;
            file.sync().await?;
            file.look().await
        };
        let failure = match synced.await {
            Ok(Node::File(found)) if found == length => session.name(&staged, &path).await.err(),
            Ok(_) => {
                let message =
                    format!("finishing the upload of {}: the file {staged} has another length", self.key);
                return Err(Error::damaged(message).on(&self.key).hint("did somebody else write to it?"));
            }
            Err(failure) => Some(failure),
        };
        if let Some(failure) = failure {
            self.was_named(session, &path, length, failure).await?;
        }
        let (removed, synced) = futures::join!(session.remove(&staged), session.sync(above(&path)));
        removed.and(synced).map_err(|failure| failure.explain("making durable", &self.key))
    }

    /// Whether an earlier attempt, whose answer was lost, had given the object its name.
    async fn was_named(&self, session: &Session, path: &str, length: u64, failure: Failure) -> Result<()> {
        let attempt = "finishing the upload of";
        if matches!(failure, Failure::Lost(_)) {
            return Err(failure.explain(attempt, &self.key));
        }
        if session.look(path).await.ok().flatten() == Some(Node::File(length)) {
            let synced: Answer<()> = session.sync(path).await;
            return synced.map_err(|failure| failure.explain(attempt, &self.key));
        }
        self.link.check(session).await?;
        if failure.is_vague() && session.is_taken(path).await.unwrap_or(false) {
            let message = format!("{attempt} {}: other content is stored there", self.key);
            return Err(Error::new(Kind::Conflict, message).on(&self.key));
        }
        Err(self.lost_or(failure, session, attempt).await)
    }

    /// A file that is gone while its directory is there will not come back.
    async fn lost_or(&self, failure: Failure, session: &Session, attempt: &str) -> Error {
        if failure.is_absent() {
            let message = format!("{attempt} {}: somebody removed the file {}", self.key, self.staged);
            return Error::new(Kind::Conflict, message).on(&self.key).hint("store the object anew");
        }
        written(self.link.refusal(session, self.part_size as u64, attempt, &self.key, failure).await)
    }
}

#[async_trait]
impl Upload for SftpUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        let length = pieces.iter().map(Bytes::len).sum::<usize>();
        if length > self.part_size {
            let message = format!("part {number} of {} has {length} bytes, not {}", self.key, self.part_size);
            return Err(Error::bug(message).on(&self.key));
        }
        let session = self.link.session().await?;
        let stored = async {
            let file = session.open(&path(&session, &self.staged), OpenFlags::WRITE).await?;
            file.write(number as u64 * self.part_size as u64, pieces).await?;
            file.sync().await
        };
        if let Err(failure) = stored.await {
            if failure.is_absent() {
                self.link.check(&session).await?;
            }
            return Err(self.lost_or(failure, &session, "uploading").await);
        }
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(number, length);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let length = self.length()?;
        let session = self.link.session().await?;
        self.name(&session, length).await?;
        self.link.check(&session).await
    }

    async fn abort(&self) -> Result<()> {
        let session = self.link.session().await?;
        let removed = session.remove(&path(&session, &self.staged)).await;
        removed.map_err(|failure| failure.explain("giving up the upload of", &self.key))
    }
}
