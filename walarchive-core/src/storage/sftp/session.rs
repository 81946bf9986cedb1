//! One connection: an `ssh` process, and SFTP over its input and output.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::rawsession::SftpResult;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::extensions::{FSYNC, HARDLINK, STATVFS};
use russh_sftp::protocol::StatusCode;
use tokio::io::{AsyncReadExt, BufReader, join};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::SftpOptions;
use super::command::{ssh, verdict};
use super::pulse::{Beating, Pulse};
use crate::error::{Error, Kind, Result};

/// Files and directories that are open at once: few enough that the handles of OpenSSH's server, numbers in four
/// bytes, stay below 128, since the protocol's library wants them as text.
const HANDLES: usize = 64;

/// How many handles may be forgotten, because their opening was given up, before the connection is made anew.
const FORGOTTEN: usize = 32;

/// How many times longer than all else syncing may take: the server answers when the disk has answered. A server
/// that is gone is found out by `ssh` itself.
const SYNC_PATIENCE: u32 = 10;

/// How many bytes are kept of what `ssh` says.
const SAID: usize = 4000;

/// Why the server did not do as asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// It answered so.
    Refused(StatusCode, String),
    /// The connection is gone: nobody knows what was done.
    Lost(String),
}

impl Failure {
    /// Whether the server says that there is no such name.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Failure::Refused(StatusCode::NoSuchFile, _))
    }

    /// Whether the server has no better word for it: a name that is taken, a full disk, a directory for a file.
    pub(super) fn is_vague(&self) -> bool {
        matches!(self, Failure::Refused(StatusCode::Failure, _))
    }
}

/// What the server answered.
pub(super) type Answer<T> = Result<T, Failure>;

/// A connection that speaks SFTP.
pub(super) struct Session {
    pub(super) sftp: RawSftpSession,
    ssh: Mutex<Child>,
    said: Said,
    pulse: Pulse,
    stall: Duration,
    pub(super) handles: Semaphore,
    forgotten: AtomicUsize,
    lost: AtomicBool,
    /// Whether the server makes files durable.
    syncs: bool,
    /// Whether the server makes hard links.
    pub(super) links: bool,
    /// Whether the server tells about its file systems.
    pub(super) tells_space: bool,
    /// The archive's directory.
    pub(super) root: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("root", &self.root).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Session {
    /// Connects; the archive's directory is not looked at.
    pub(super) async fn connect(options: &SftpOptions) -> Result<Session> {
        let mut session = Session::start(options)?;
        let version = match timeout(options.connect_timeout, session.sftp.init()).await {
            Ok(Ok(version)) => version,
            Ok(Err(error)) => return Err(session.no_start(options, &error.to_string()).await),
            Err(_) => return Err(session.no_start(options, "no answer in time").await),
        };
        let has = |name: &str| version.extensions.contains_key(name);
        session.syncs = has(FSYNC);
        session.links = has(HARDLINK);
        session.tells_space = has(STATVFS);
        if let Some(below) = options.path.strip_prefix("/~/") {
            let home = session.ask(session.sftp.realpath(".")).await;
            let home =
                home.map_err(|failure| failure.explain("finding the home directory", &options.host))?;
            let home = home.files.first().map_or("", |file| file.filename.as_str());
            session.root = format!("{}/{below}", home.trim_end_matches('/'));
        }
        Ok(session)
    }

    fn start(options: &SftpOptions) -> Result<Session> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::usage("an archive over SSH needs a tokio runtime with time and io enabled"));
        }
        let mut command = Command::from(ssh(options));
        // A group of its own: what interrupts the terminal must not keep this program from tidying up.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(no_ssh)?;
        let (Some(input), Some(output), Some(complaints)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::bug("ssh was started without pipes"));
        };
        let pulse = Pulse::new();
        let stream = Beating { stream: join(BufReader::new(output), input), pulse: pulse.clone() };
        // Time is kept here, by what moves, not by the age of each request.
        let config = Config { request_timeout_secs: u64::MAX, ..Config::default() };
        Ok(Session {
            sftp: RawSftpSession::new_with_config(stream, config),
            ssh: Mutex::new(child),
            said: Said::listen(complaints),
            pulse,
            stall: options.stall_timeout,
            handles: Semaphore::new(HANDLES),
            forgotten: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            syncs: false,
            links: false,
            tells_space: false,
            root: options.path.trim_end_matches('/').to_owned(),
        })
    }

    /// Refuses to store anything on a server that could lose it.
    pub(super) fn must_sync(&self, host: &str) -> Result<()> {
        if self.syncs {
            return Ok(());
        }
        let message = format!("the SFTP server {host} cannot make files durable: it has no {FSYNC}");
        Err(Error::usage(message).on(host).hint(
            "use a server that has it, such as OpenSSH; one that only lets read, as with internal-sftp -R, does not say that it has it",
        ))
    }

    /// Why there is no connection, as far as `ssh` has said.
    async fn no_start(&self, options: &SftpOptions, found: &str) -> Error {
        self.end();
        let said = self.said.all().await;
        let (kind, hint) = verdict(&said);
        let found = if said.is_empty() { found } else { said.as_str() };
        let error =
            Error::new(kind, format!("connecting to {} over SSH: {found}", options.host)).on(&options.host);
        if hint.is_empty() { error } else { error.hint(hint) }
    }

    /// Whether the next request may be answered.
    pub(super) fn is_usable(&self) -> bool {
        let mut ssh = self.ssh.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = self.lost.load(Ordering::Relaxed) || self.forgotten.load(Ordering::Relaxed) > FORGOTTEN;
        !lost && matches!(ssh.try_wait(), Ok(None))
    }

    /// A handle that nobody will close.
    pub(super) fn forget_one(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the connection; all that wait for an answer are told.
    pub(super) fn end(&self) {
        self.lost.store(true, Ordering::Relaxed);
        // One that has ended already needs no end.
        let _ = self.ssh.lock().unwrap_or_else(PoisonError::into_inner).start_kill();
    }

    /// The answer to a request.
    pub(super) async fn ask<T>(&self, request: impl Future<Output = SftpResult<T>>) -> Answer<T> {
        self.ask_for(1, request).await
    }

    /// The answer to a request to sync, which may take its time.
    pub(super) async fn ask_to_sync<T>(&self, request: impl Future<Output = SftpResult<T>>) -> Answer<T> {
        self.ask_for(SYNC_PATIENCE, request).await
    }

    async fn ask_for<T>(&self, times: u32, request: impl Future<Output = SftpResult<T>>) -> Answer<T> {
        let limit = self.stall.saturating_mul(times);
        let found = tokio::select! {
            biased;
            answer = request => match answer {
                Ok(answer) => return Ok(answer),
                Err(SftpError::Status(status)) => {
                    return Err(Failure::Refused(status.status_code, status.error_message));
                }
                Err(error) => error.to_string(),
            },
            () = self.pulse.stopped(limit) => format!("no sign of life for {limit:?}"),
        };
        self.end();
        let said = self.said.all().await;
        Err(Failure::Lost(if said.is_empty() { found } else { said }))
    }
}

fn no_ssh(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound => Error::usage("archives at sftp:// need the program ssh")
            .hint("install OpenSSH's client")
            .because(source),
        _ => Error::io("starting ssh", source),
    }
}

impl Failure {
    /// What it means for `object`.
    pub(super) fn explain(self, attempt: &str, object: &str) -> Error {
        let object = if object.is_empty() { "the archive" } else { object };
        let (kind, found, hint) = match self {
            Failure::Lost(found) => (Kind::Unreachable, format!("the SSH connection was lost: {found}"), ""),
            Failure::Refused(code, found) => match code {
                StatusCode::NoSuchFile => (Kind::Absent, found, ""),
                StatusCode::PermissionDenied => {
                    (Kind::Denied, found, "let the user of the archive read and write there")
                }
                StatusCode::OpUnsupported | StatusCode::BadMessage => (Kind::Usage, found, ""),
                _ => (Kind::Unreachable, format!("the server said no more than {found:?}"), ""),
            },
        };
        let error = Error::new(kind, format!("{attempt} {object}: {found}")).on(object);
        if hint.is_empty() { error } else { error.hint(hint) }
    }
}

/// What `ssh` said, the latest of it.
#[derive(Debug, Clone)]
struct Said(Arc<(Mutex<Vec<u8>>, Semaphore)>);

impl Said {
    fn listen(mut complaints: ChildStderr) -> Said {
        let said = Said(Arc::new((Mutex::default(), Semaphore::new(0))));
        let keeper = said.clone();
        tokio::spawn(async move {
            let mut piece = [0; 1024];
            while let Ok(length @ 1..) = complaints.read(&mut piece).await {
                let mut text = keeper.0.0.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend_from_slice(&piece[..length]);
                let excess = text.len().saturating_sub(SAID);
                text.drain(..excess);
            }
            keeper.0.1.close();
        });
        said
    }

    /// All of it, once `ssh` has ended; in one line.
    async fn all(&self) -> String {
        // What keeps the pipe open when `ssh` is gone, perhaps a proxy of it, is not waited for.
        tokio::select! {
            _ = self.0.1.acquire() => {}
            () = sleep(Duration::from_millis(500)) => {}
        }
        let text = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(|line| line.trim().trim_matches('@').trim());
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}
