//! An archive in a directory of another machine, over SSH.

mod command;
mod create;
mod files;
mod link;
mod pulse;
mod session;
mod upload;
mod walk;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use russh_sftp::protocol::OpenFlags;

use self::files::Node;
use self::link::{Link, above};
use self::session::{Answer, Failure, Session};
use self::upload::SftpUpload;
use super::{Created, Entry, Part, Parts, Storage, Unfinished, Upload, key};
use crate::error::{Error, Kind, Result};

/// Where an archive lies that is reached over SSH, and how it is reached.
#[derive(Debug, Clone)]
pub struct SftpOptions {
    /// The user there; `None` leaves it to `ssh` and its settings.
    pub user: Option<String>,
    /// The server: a name, an address, or a `Host` of `ssh`'s settings.
    pub host: String,
    /// The port; `None` leaves it to `ssh` and its settings.
    pub port: Option<u16>,
    /// The archive's directory: absolute, or below the user's home directory when it begins with `/~/`.
    pub path: String,
    /// The file of the private key; `None` leaves it to `ssh`: its settings, its agent.
    pub identity: Option<PathBuf>,
    /// The file of the servers' keys, instead of those that `ssh` reads by itself.
    pub known_hosts: Option<PathBuf>,
    /// How long connecting may take, until the server speaks SFTP.
    pub connect_timeout: Duration,
    /// How long nothing may move while an answer is awaited.
    pub stall_timeout: Duration,
    /// How large objects are cut.
    pub parts: Parts,
}

impl SftpOptions {
    /// The directory `path` on `host`, and the defaults: 15 s to connect, 60 s without a sign of life.
    pub fn new(host: impl Into<String>, path: impl Into<String>) -> SftpOptions {
        SftpOptions {
            user: None,
            host: host.into(),
            port: None,
            path: path.into(),
            identity: None,
            known_hosts: None,
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(60),
            parts: Parts::default(),
        }
    }
}

/// An archive in a directory that `ssh` and the server's SFTP reach. `ssh` decides about keys, agents, jumps and known
/// servers, by its own settings; it is never let ask a question, nor trust a server that is not known.
///
/// The server must be able to sync files and directories (`fsync@openssh.com`), else nothing is stored. An object is
/// written under a name that ends in `#` and random digits, synced, linked to its own name, which must be free, and
/// its directory is synced. Where the server makes no hard links it is renamed: what the protocol says, and OpenSSH
/// does, is that a name that is taken is refused.
///
/// The root directory is looked up before and after each operation that writes, and before an object is believed
/// absent. Is it gone, or on another file system, the operation is [`Kind::Unreachable`].
///
/// There is one connection, made when it is needed first and after it was lost. What was under way when it was lost is
/// `Unreachable`. Calls need a tokio runtime with time and io enabled.
#[derive(Debug)]
pub struct SftpStorage {
    link: Arc<Link>,
    parts: Parts,
}

impl SftpStorage {
    /// The archive that `options` name. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// `Usage` for options that cannot be meant. The calls that connect give `Usage` too when there is no `ssh`, or
    /// the server lacks what is needed or has no directory there but a file, `Denied` when either side does not
    /// accept the other's key, and `Unreachable` when there is no connection, or no such directory.
    pub fn open(options: SftpOptions) -> Result<Self> {
        SftpStorage::new(options, false)
    }

    /// As [`open`](SftpStorage::open), but the first connection makes the directory with all that lead to it, durably.
    /// The mode of a new root is 0700; a directory that exists is taken as it is.
    ///
    /// # Errors
    ///
    /// As [`open`](SftpStorage::open).
    pub fn create_root(options: SftpOptions) -> Result<Self> {
        SftpStorage::new(options, true)
    }

    fn new(options: SftpOptions, make_root: bool) -> Result<Self> {
        command::check(&options)?;
        let parts = options.parts.clone();
        Ok(SftpStorage { link: Arc::new(Link::new(options, make_root)), parts })
    }

    /// Whether `answer` about `key` can be believed: what is missing may be missing with the whole root.
    async fn believed<T>(&self, session: &Session, attempt: &str, key: &str, answer: Answer<T>) -> Result<T> {
        match answer {
            Ok(value) => Ok(value),
            Err(failure) => {
                if matches!(failure, Failure::Refused(..)) {
                    self.link.check(session).await?;
                }
                Err(failure.explain(attempt, key))
            }
        }
    }
}

/// Where `key` lies.
fn path(session: &Session, key: &str) -> String {
    format!("{}/{key}", session.root)
}

/// Something missing while writing is no absent object.
fn written(error: Error) -> Error {
    if error.kind() != Kind::Absent {
        return error;
    }
    let object = error.object().unwrap_or_default().to_owned();
    Error::new(Kind::Unreachable, error.to_string()).on(object).because(error)
}

#[async_trait]
impl Storage for SftpStorage {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        key::object(key)?;
        let session = self.link.session().await?;
        self.link.must_sync(&session)?;
        let path = path(&session, key);
        // What is there already need not be sent and synced under another name first, to find that out.
        let (root, taken) = futures::join!(self.link.check(&session), session.is_taken(&path));
        root?;
        let created = match taken {
            Ok(true) => self.settle(&session, key).await,
            Ok(false) => self.write_new(&session, key, payload).await,
            Err(failure) => Err(failure.explain("storing", key)),
        }?;
        self.link.check(&session).await?;
        Ok(created)
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        key::object(key)?;
        let session = self.link.session().await?;
        self.link.must_sync(&session)?;
        self.link.check(&session).await?;
        let staged = self.stage(&session, key).await?;
        let staged = staged[session.root.len() + 1..].to_owned();
        Ok(Box::new(SftpUpload::new(Arc::clone(&self.link), key, staged, self.parts.size)))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        key::object(key)?;
        let session = self.link.session().await?;
        let path = path(&session, key);
        let read = async {
            let file = session.open(&path, OpenFlags::READ).await?;
            let Node::File(size) = file.look().await? else { return Ok(None) };
            let wanted = range.unwrap_or(0..size);
            let wanted = wanted.start.min(size)..wanted.end.min(size).max(wanted.start.min(size));
            let length = wanted.end - wanted.start;
            Ok(Some((file.read(wanted).await?, length, size)))
        };
        match self.believed(&session, "reading", key, read.await).await? {
            Some((bytes, length, object_size)) if bytes.len() as u64 == length => {
                Ok(Part { bytes: bytes.freeze(), object_size })
            }
            Some(_) => {
                Err(Error::damaged(format!("reading {key}: it ends before its length of a moment ago"))
                    .on(key))
            }
            None => Err(no_object("reading", key)),
        }
    }

    async fn size(&self, key: &str) -> Result<u64> {
        key::object(key)?;
        let session = self.link.session().await?;
        let found = session.look(&path(&session, key)).await;
        match self.believed(&session, "looking up", key, found).await? {
            Some(Node::File(size)) => Ok(size),
            _ => {
                self.link.check(&session).await?;
                Err(no_object("looking up", key))
            }
        }
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        walk::objects(Arc::clone(&self.link), prefix)
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        key::prefix(prefix)?;
        walk::directories(&self.link, prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        key::object(key)?;
        let session = self.link.session().await?;
        self.link.check(&session).await?;
        let path = path(&session, key);
        let removed = async {
            if let Err(failure) = session.remove(&path).await {
                // A directory is no object.
                if !failure.is_vague() || session.look(&path).await? != Some(Node::Directory) {
                    return Err(failure);
                }
            }
            // Also when there was nothing to remove: another process may have removed it a moment ago.
            match session.sync(above(&path)).await {
                Err(failure) if !failure.is_absent() => Err(failure),
                _ => Ok(()),
            }
        };
        let removed = removed.await;
        removed.map_err(|failure| failure.explain("removing", key))?;
        self.link.check(&session).await
    }

    fn parts(&self) -> Parts {
        self.parts.clone()
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        walk::unfinished(Arc::clone(&self.link))
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        key::object(&unfinished.key)?;
        if !walk::is_mark(&unfinished.id) {
            return Err(Error::usage(format!("{:?} is no unfinished upload", unfinished.id)));
        }
        let session = self.link.session().await?;
        let path = path(&session, &format!("{}#{}", unfinished.key, unfinished.id));
        let removed = session.remove(&path).await;
        removed.map_err(|failure| failure.explain("removing what is left of", &unfinished.key))
    }
}

fn no_object(attempt: &str, key: &str) -> Error {
    Error::new(Kind::Absent, format!("{attempt} {key}: there is no such object")).on(key)
}
