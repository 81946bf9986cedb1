//! What can go wrong, in kinds that callers act on.
//!
//! An error says what was attempted, on which object, and what to do. Its [`Kind`] decides the exit code of
//! the programs, the status of the C interface, and whether a retry makes sense.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Proven absent: the archive was reached and proven to be the right one, and has no such object.
    Absent,
    /// Wrong usage or configuration.
    Usage,
    /// Other content is stored under that name.
    Conflict,
    /// The data belongs to another cluster than the one named.
    WrongCluster,
    /// The target is not safe to write to (not empty, not a directory, in use).
    UnsafeTarget,
    /// What was asked for cannot be reached with the WAL and backups that are stored.
    Unrestorable,
    /// Somebody else holds what is needed.
    Busy,
    /// A checksum, tag, length or header does not hold.
    Damaged,
    /// No key opens the object, or a key file is unusable.
    Key,
    /// The store or server could not be reached, or did not answer in time.
    Unreachable,
    /// The store or server refused the credentials.
    Denied,
    /// This machine: disk full, permission, local input or output.
    Local,
    /// The caller asked for an end.
    Cancelled,
    /// A mistake in this program.
    Bug,
}

impl Kind {
    /// The exit code of the programs for this kind; part of the contract with scripts.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Absent => 1,
            Kind::Usage => 2,
            Kind::Conflict | Kind::WrongCluster | Kind::UnsafeTarget | Kind::Unrestorable | Kind::Busy => 3,
            Kind::Damaged | Kind::Key => 4,
            Kind::Unreachable | Kind::Denied => 5,
            Kind::Local | Kind::Cancelled => 6,
            Kind::Bug => 70,
        }
    }

    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Absent => "absent",
            Kind::Usage => "usage",
            Kind::Conflict => "conflict",
            Kind::WrongCluster => "wrong-cluster",
            Kind::UnsafeTarget => "unsafe-target",
            Kind::Unrestorable => "unrestorable",
            Kind::Busy => "busy",
            Kind::Damaged => "damaged",
            Kind::Key => "key",
            Kind::Unreachable => "unreachable",
            Kind::Denied => "denied",
            Kind::Local => "local",
            Kind::Cancelled => "cancelled",
            Kind::Bug => "bug",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything here.
    pub fn is_transient(self) -> bool {
        matches!(self, Kind::Unreachable)
    }

    /// Whether the next object would fail as this one did, so that going on is of no use.
    pub fn concerns_all(self) -> bool {
        matches!(self, Kind::Unreachable | Kind::Denied | Kind::Cancelled)
    }
}

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// An error of one [`Kind`], with what was attempted, on which object, what to do, and its cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    object: Option<String>,
    hint: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    /// A new error; `message` says what was attempted and what was found.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            object: None,
            hint: None,
            retry_after: None,
            source: None,
        }))
    }

    /// Names the object (archive key, file, server) that the error is about.
    #[must_use]
    pub fn on(mut self, object: impl fmt::Display) -> Self {
        self.0.object.get_or_insert(object.to_string());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says how long the store wants to be left alone.
    #[must_use]
    pub fn wait(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says what was being done when the error came up: `doing: message`.
    #[must_use]
    pub fn during(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// An input or output error of this machine's files.
    pub fn io(attempt: impl fmt::Display, source: std::io::Error) -> Self {
        Error::new(Kind::Local, attempt.to_string()).because(source)
    }

    /// A value from a caller or the configuration that cannot be used.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Kind::Usage, message)
    }

    /// Stored data that does not hold.
    pub fn damaged(message: impl Into<String>) -> Self {
        Error::new(Kind::Damaged, message)
    }

    /// A broken promise inside this program.
    pub fn bug(message: impl Into<String>) -> Self {
        Error::new(Kind::Bug, message)
    }

    /// The class of this error.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The object that the error is about, when one is known.
    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// How long the store wants to be left alone, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The whole story in one line: message, object, causes, and what to do.
    pub fn story(&self) -> String {
        let mut line = self.0.message.clone();
        if let Some(object) = &self.0.object
            && !line.contains(object.as_str())
        {
            line = format!("{line} ({object})");
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.contains(&text) {
                line = format!("{line}: {text}");
            }
            cause = error.source();
        }
        if let Some(hint) = &self.0.hint {
            line = format!("{line}; {hint}");
        }
        line
    }
}

/// What went wrong with single objects, while work went on with the others. As JSON, a list.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Troubles {
    /// Each of them.
    pub each: Vec<Trouble>,
    /// The gravest.
    #[serde(skip)]
    pub gravest: Option<Error>,
}

/// What went wrong with one object.
#[derive(Debug, Serialize)]
pub struct Trouble {
    /// [`Kind::name`]
    pub kind: &'static str,
    /// Its key.
    pub object: String,
    /// The whole story.
    pub detail: String,
}

impl Troubles {
    /// One more.
    pub fn add(&mut self, object: &str, error: Error) {
        let (kind, detail) = (error.kind().name(), error.story());
        self.each.push(Trouble { kind, object: object.to_owned(), detail });
        // What may go away by itself counts less than what will not.
        if self.gravest.as_ref().is_none_or(|known| known.kind().is_transient()) {
            self.gravest = Some(error);
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.story())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
