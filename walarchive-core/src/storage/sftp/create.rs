//! How an object gets its name: written elsewhere, synced, linked.

use bytes::Bytes;
use futures::future::try_join_all;
use russh_sftp::protocol::OpenFlags;

use super::files::Node;
use super::link::{above, make_directory};
use super::session::{Failure, Session};
use super::{SftpStorage, path, written};
use crate::error::{Error, Kind, Result};
use crate::storage::Created;

impl SftpStorage {
    /// Stores an object that is not there, as far as is known.
    pub(super) async fn write_new(
        &self,
        session: &Session,
        key: &str,
        payload: Vec<Bytes>,
    ) -> Result<Created> {
        let bytes = payload.iter().map(|piece| piece.len() as u64).sum();
        let staged = self.stage(session, key).await?;
        let path = path(session, key);
        let named = async {
            let file = session.open(&staged, OpenFlags::WRITE).await?;
            file.write(0, payload).await?;
            file.sync().await?;
            drop(file);
            session.name(&staged, &path).await
        };
        let failure = match named.await {
            Ok(both) => {
                let left = async { if both { session.remove(&staged).await } else { Ok(()) } };
                let (synced, left) = futures::join!(session.sync(above(&path)), left);
                let done = synced.and(left);
                done.map_err(|failure| failure.explain("making durable", key))?;
                return Ok(Created::New);
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Lost(_)) {
            return Err(failure.explain("storing", key));
        }
        // What is left when this fails, too, is found among the unfinished.
        let _ = session.remove(&staged).await;
        if failure.is_vague() && session.is_taken(&path).await.unwrap_or(false) {
            return self.settle(session, key).await;
        }
        self.link.check(session).await?;
        Err(written(self.link.refusal(session, bytes, "storing", key, failure).await))
    }

    /// Makes a fresh file for the content of `key`, and the directories that lead to it; its path.
    pub(super) async fn stage(&self, session: &Session, key: &str) -> Result<String> {
        let staged = format!("{}#{:016x}", path(session, key), random()?);
        let fresh = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let mut made = session.open(&staged, fresh).await.map(drop);
        if made.as_ref().is_err_and(Failure::is_absent) {
            self.link.check(session).await?;
            self.make_parents(session, key).await?;
            made = session.open(&staged, fresh).await.map(drop);
        }
        match made {
            Ok(()) => Ok(staged),
            Err(failure) => Err(written(self.link.refusal(session, 0, "storing", key, failure).await)),
        }
    }

    async fn make_parents(&self, session: &Session, key: &str) -> Result<()> {
        for (end, _) in key.match_indices('/') {
            let directory = path(session, &key[..end]);
            if let Err(failure) = make_directory(session, &directory, None).await {
                if failure.is_vague() && session.is_taken(&directory).await.unwrap_or(false) {
                    let message = format!("storing {key}: {directory} is not a directory");
                    return Err(Error::new(Kind::Conflict, message).on(key));
                }
                let attempt = "making the directory of";
                return Err(written(self.link.refusal(session, 0, attempt, key, failure).await));
            }
        }
        Ok(())
    }

    /// Makes an object durable that somebody else stored, perhaps a moment ago, perhaps without surviving.
    pub(super) async fn settle(&self, session: &Session, key: &str) -> Result<Created> {
        let path = path(session, key);
        let settled = async {
            let file = session.open(&path, OpenFlags::READ).await?;
            if !matches!(file.look().await?, Node::File(_)) {
                return Ok(false);
            }
            file.sync().await?;
            drop(file);
            let mut directories = vec![above(&path)];
            while directories[directories.len() - 1].len() > session.root.len() {
                directories.push(above(directories[directories.len() - 1]));
            }
            try_join_all(directories.into_iter().map(|directory| session.sync(directory))).await?;
            Ok(true)
        };
        match settled.await {
            Ok(true) => Ok(Created::Exists),
            Ok(false) => {
                Err(Error::new(Kind::Conflict, format!("storing {key}: {path} is not a file")).on(key))
            }
            Err(failure) => Err(written(self.link.refusal(session, 0, "making durable", key, failure).await)),
        }
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|source| Error::bug("no random numbers").because(source))?;
    Ok(u64::from_le_bytes(bytes))
}
