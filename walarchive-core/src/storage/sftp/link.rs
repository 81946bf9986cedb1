//! The way to the archive's directory: one connection at a time, made anew when it is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Mutex;

use super::SftpOptions;
use super::files::Node;
use super::session::{Answer, Failure, Session};
use crate::error::{Error, Kind, Result};

/// Bytes without which a file system is as good as full.
const LITTLE: u64 = 64 << 10;

/// How the archive's directory is reached.
#[derive(Debug)]
pub(super) struct Link {
    options: SftpOptions,
    /// Whether the directory is made when it is missing; only until it has been seen.
    make_root: AtomicBool,
    /// The file system that the directory was seen on first, if the server tells.
    file_system: OnceLock<u64>,
    /// How many connections were tried.
    tried: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    failure: Option<(Kind, String)>,
}

impl Link {
    pub(super) fn new(options: SftpOptions, make_root: bool) -> Link {
        Link {
            options,
            make_root: AtomicBool::new(make_root),
            file_system: OnceLock::new(),
            tried: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// The connection, made now if there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let tried = self.tried.load(Ordering::Relaxed);
        let mut state = self.state.lock().await;
        if let Some(session) = state.session.as_ref().filter(|session| session.is_usable()) {
            return Ok(Arc::clone(session));
        }
        state.session = None;
        // Those who waited for an attempt that failed do not all wait for one of their own.
        if tried != self.tried.load(Ordering::Relaxed)
            && let Some((kind, message)) = &state.failure
        {
            return Err(Error::new(*kind, message.clone()).on(&self.options.host));
        }
        let session = self.connect().await;
        self.tried.fetch_add(1, Ordering::Relaxed);
        state.failure = session.as_ref().err().map(|error| (error.kind(), error.story()));
        let session = Arc::new(session?);
        state.session = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn connect(&self) -> Result<Session> {
        let session = Session::connect(&self.options).await?;
        if self.make_root.load(Ordering::Relaxed) {
            self.create_root(&session).await?;
        }
        self.check(&session).await?;
        self.make_root.store(false, Ordering::Relaxed);
        Ok(session)
    }

    /// The archive's directory, as people know it.
    pub(super) fn place(&self) -> String {
        format!("{} on {}", self.options.path, self.options.host)
    }

    /// Whether the directory is there, and still on the file system that it was on: under an unmounted one another
    /// comes to light.
    pub(super) async fn check(&self, session: &Session) -> Result<()> {
        let (node, file_system) = futures::join!(session.look(&session.root), self.file_system(session));
        let place = self.place();
        let unusable = |failure: Failure| failure.explain("looking up the archive's directory", &place);
        match node.map_err(unusable)? {
            Some(Node::Directory) => {}
            Some(_) => {
                return Err(
                    Error::usage(format!("the archive's place {place} is not a directory")).on(&place)
                );
            }
            None => {
                let message = format!("the archive's directory {place} is not there");
                return Err(Error::new(Kind::Unreachable, message).on(&place).hint("is it mounted there?"));
            }
        }
        let Some(found) = file_system else { return Ok(()) };
        if *self.file_system.get_or_init(|| found) == found {
            return Ok(());
        }
        let message = format!("the archive's directory {place} is not on the file system that it was on");
        Err(Error::new(Kind::Unreachable, message)
            .on(&place)
            .hint("was it unmounted or replaced there? Mount it and start again"))
    }

    /// The id of the directory's file system, where it has one.
    async fn file_system(&self, session: &Session) -> Option<u64> {
        if !session.tells_space {
            return None;
        }
        let found = session.ask(session.sftp.statvfs(session.root.as_str())).await.ok()?;
        Some(found.fs_id).filter(|id| *id != 0)
    }

    /// Refuses to store anything on a server that could lose it.
    pub(super) fn must_sync(&self, session: &Session) -> Result<()> {
        session.must_sync(&self.options.host)
    }

    /// Makes the archive's directory with all that lead to it, durably, as for a directory of this machine.
    async fn create_root(&self, session: &Session) -> Result<()> {
        self.must_sync(session)?;
        let place = self.place();
        let failed = |failure: Failure| failure.explain("making the archive's directory", &place);
        let mut missing = Vec::new();
        let mut path = session.root.as_str();
        while !path.is_empty() && session.look(path).await.map_err(failed)?.is_none() {
            missing.push(path);
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
        for directory in missing.into_iter().rev() {
            let mode = if directory == session.root { 0o700 } else { 0o755 };
            make_directory(session, directory, Some(mode)).await.map_err(failed)?;
        }
        Ok(())
    }

    /// What a refusal to write `bytes` means for `key`: whether the disk is full, only the file system can tell.
    pub(super) async fn refusal(
        &self,
        session: &Session,
        bytes: u64,
        attempt: &str,
        key: &str,
        failure: Failure,
    ) -> Error {
        if failure.is_vague() && session.tells_space {
            let space = session.ask(session.sftp.statvfs(session.root.as_str())).await;
            let full = space.is_ok_and(|space| {
                let unit = space.fragment_size.max(1);
                let names = space.inodes > 0 && space.inodes_avail == 0;
                space.blocks_avail.saturating_mul(unit) < bytes.saturating_add(LITTLE) || names
            });
            if full {
                let message = format!("{attempt} {key}: no space is left in {}", self.place());
                return Error::new(Kind::Local, message).on(key).hint("make room there: nothing was stored");
            }
        }
        let error = failure.explain(attempt, key);
        error.during(format_args!("archive in {}", self.place()))
    }
}

/// Makes a directory durably, or finds it made by somebody else.
pub(super) async fn make_directory(session: &Session, path: &str, mode: Option<u32>) -> Answer<()> {
    match session.make_directory(path, mode).await {
        Ok(()) => session.sync(above(path)).await,
        Err(failure) if failure.is_vague() => match session.look(path).await? {
            Some(Node::Directory) => Ok(()),
            _ => Err(failure),
        },
        Err(failure) => Err(failure),
    }
}

/// The directory that `path` lies in.
pub(super) fn above(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((above, _)) => above,
    }
}
