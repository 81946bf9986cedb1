//! Proving what is stored: that all of it is there, that every byte of it holds, and what it leads to.

mod memory;
mod proving;
mod repair;
mod room;
mod survey;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use self::memory::Memory;
pub use self::repair::{PutBack, put_back_descriptions};
use self::survey::Survey;
use crate::archive::{Archive, BackupId, ClusterName, Recoverable, SystemId};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// Repairs may show what else is to be repaired; then all of it is looked at again, so many times at most.
const ROUNDS: usize = 4;

/// The kind of problem of what could not be read.
const UNREACHABLE: &str = "unreachable";
/// What depends on an archive's description.
const EVERYTHING: &str = "everything";

/// What is to be proven.
pub struct VerifyRequest {
    /// The archive. Each of its mirrors is proven by itself.
    pub archive: Archive,
    /// How the archive is called, for people.
    pub name: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// Only what was stored of this system identifier; all of them, and dumps, when it is not said.
    pub system: Option<SystemId>,
    /// Read all bytes of all objects.
    pub deep: bool,
    /// Only this backup or dump, and what it needs.
    pub only: Option<BackupId>,
    /// Of all bytes, only a share, that which was not proven for longest.
    pub share: Option<Share>,
    /// Where it is remembered what was seen and proven; not at all without it.
    pub memory: Option<PathBuf>,
    /// Another copy of the archive, from which what does not hold is replaced.
    pub repair_from: Option<Archive>,
    /// Objects that are read at once.
    pub jobs: usize,
    /// Hears how far it is.
    pub progress: Arc<dyn Progress>,
}

impl VerifyRequest {
    /// Reads and proves all bytes.
    #[must_use]
    pub fn deep(self) -> VerifyRequest {
        VerifyRequest { deep: true, ..self }
    }

    /// Looks only at this backup or dump, and what it needs.
    #[must_use]
    pub fn only(self, id: BackupId) -> VerifyRequest {
        VerifyRequest { only: Some(id), ..self }
    }

    /// Replaces what does not hold with what `other`, a copy of the archive, has.
    #[must_use]
    pub fn repair_from(self, other: Archive) -> VerifyRequest {
        VerifyRequest { repair_from: Some(other), ..self }
    }

    /// Looks, as [`verify`] does.
    pub async fn run(&self) -> Result<Verified> {
        verify(self).await
    }
}

/// A part of all bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// So many parts
    pub part: u32,
    /// of so many.
    pub of: u32,
}

impl std::str::FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Share> {
        let wrong = || Error::usage(format!("{text:?} is no fraction")).hint("write it like 1/7");
        let (part, of) = text.split_once('/').ok_or_else(wrong)?;
        let share = Share { part: part.parse().map_err(|_| wrong())?, of: of.parse().map_err(|_| wrong())? };
        if share.part == 0 || share.part > share.of { Err(wrong()) } else { Ok(share) }
    }
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `missing`, `damaged`, `key` (no identity opens it), `rolled-back`, or `unreachable`: what it is cannot be told.
    pub kind: &'static str,
    /// The key of the object.
    pub object: String,
    /// What was found.
    pub detail: String,
    /// What cannot be restored any more because of it.
    pub endangers: Vec<String>,
    /// In which of the archive's stores, where there are several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub archive: String,
}

impl Problem {
    fn new(key: &str, error: &Error) -> Problem {
        let kind = match error.kind() {
            Kind::Absent => "missing",
            Kind::Key => "key",
            kind if may_be_sound(kind) => UNREACHABLE,
            _ => "damaged",
        };
        Problem {
            kind,
            object: key.to_owned(),
            detail: error.story(),
            endangers: Vec::new(),
            archive: String::new(),
        }
    }

    fn of_description(error: &Error, store: &str) -> Problem {
        let problem = Problem::new(error.object().unwrap_or_default(), error);
        Problem { endangers: vec![EVERYTHING.to_owned()], archive: store.to_owned(), ..problem }
    }
}

/// Whether a failure says nothing of the object: another try, user or machine may read it.
fn may_be_sound(kind: Kind) -> bool {
    matches!(kind, Kind::Unreachable | Kind::Denied | Kind::Local)
}

/// What a backup promises, as far as that was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// Its id.
    pub id: String,
    /// Whether all of it is there and holds, with the WAL that makes it consistent.
    pub restorable: bool,
    /// The first moment that it leads to.
    pub from: Timestamp,
    /// The stretches that it leads to, on the lines of all timelines.
    pub leads_to: Vec<Recoverable>,
    /// What stands in the way.
    pub because_of: Vec<String>,
}

/// What a dump promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DumpPromise {
    /// Its id.
    pub id: String,
    /// Of which database, or `globals`.
    pub database: String,
    /// Whether all of it is there and holds.
    pub restorable: bool,
    /// What stands in the way.
    pub because_of: Vec<String>,
}

/// What was proven.
#[derive(Debug, Default)]
pub struct Verified {
    /// Objects that were looked at.
    pub objects: u64,
    /// Stored bytes that were read and proven.
    pub bytes: u64,
    /// Whether contents were opened.
    pub opened: bool,
    /// Whether what no trusted writer signed counts as damaged.
    pub signatures: bool,
    /// What does not hold.
    pub problems: Vec<Problem>,
    /// What did not hold, and was replaced.
    pub repaired: Vec<Problem>,
    /// Backups, oldest first.
    pub backups: Vec<Promise>,
    /// Dumps, oldest first.
    pub dumps: Vec<DumpPromise>,
    /// What is no problem, and people may want to know.
    pub notes: Vec<String>,
    /// Since when each byte was proven at least once, where that is remembered.
    pub proven_since: Option<Timestamp>,
    /// Why something could not be read, and may hold or not.
    pub unread: Option<Kind>,
    /// Why it was not brought to its end.
    pub broken_off: Option<Error>,
}

impl Verified {
    /// Whether all that was looked at holds, and it was brought to its end.
    pub fn ok(&self) -> bool {
        self.problems.is_empty() && self.broken_off.is_none()
    }

    /// What `verify` tells, as JSON.
    pub fn document(&self, deep: bool) -> Value {
        json!({
            "ok": self.ok(), "deep": deep, "opened": self.opened, "signatures": self.signatures, "objects": self.objects, "bytes": self.bytes,
            "problems": self.problems, "repaired": self.repaired, "backups": self.backups, "dumps": self.dumps,
            "notes": self.notes, "proven_since": self.proven_since, "broken_off": self.broken_off.as_ref().map(Error::story),
        })
    }

    /// The kind of error that this is, if it is one.
    pub fn kind(&self) -> Option<Kind> {
        match self.problems.iter().any(|problem| problem.kind != UNREACHABLE) {
            true => Some(Kind::Damaged),
            false => self.broken_off.as_ref().map(Error::kind).or(self.unread),
        }
    }
}

/// Proves what is stored. Nothing is changed, unless there is something to repair from.
///
/// # Errors
///
/// When it could not begin: what does not hold is told in the result.
pub async fn verify(request: &VerifyRequest) -> Result<Verified> {
    if request.repair_from.as_ref().is_some_and(|other| other.info().id() != request.archive.info().id()) {
        return Err(Error::new(
            Kind::Conflict,
            "the archive to repair from is another archive, and no copy of this one",
        )
        .hint("copies have the same archive.json; 'walarchive copy' makes them"));
    }
    let mut all = Verified {
        opened: request.archive.can_open(),
        signatures: request.archive.demands_signatures(),
        ..Verified::default()
    };
    for (name, copy) in request.archive.copies() {
        let one = One { request, name: &name, copy: &copy };
        match one.verify(&mut all).await {
            Err(error) if name.is_empty() => return Err(error),
            // What ails one mirror says nothing of the others.
            Err(error) => drop(all.broken_off.get_or_insert(error.during(&name))),
            Ok(()) => {}
        }
    }
    Ok(all)
}

/// One copy of the archive.
struct One<'a> {
    request: &'a VerifyRequest,
    name: &'a str,
    copy: &'a Archive,
}

impl One<'_> {
    async fn verify(&self, all: &mut Verified) -> Result<()> {
        let known_as = if self.name.is_empty() { &self.request.name } else { self.name };
        let mut memory = self
            .request
            .memory
            .as_ref()
            .map(|dir| Memory::load(dir, self.copy, known_as, &self.request.cluster));
        let (mut proven, mut given_up) = (BTreeSet::new(), BTreeSet::new());
        let mut rounds = 1;
        loop {
            let mut survey = Survey::make(self.copy, self.request, memory.as_ref()).await?;
            all.objects = survey.objects();
            let read = self.read(&mut survey, memory.as_mut(), &mut proven, all).await;
            let repaired = match &self.request.repair_from {
                Some(other) if read.is_ok() && rounds < ROUNDS => {
                    self.repair(&mut survey, other, &mut proven, &mut given_up, all).await
                }
                _ => false,
            };
            rounds += 1;
            if !repaired {
                self.report(survey, memory, read.err(), all);
                return Ok(());
            }
        }
    }

    /// Reads what is to be read, and what was not yet.
    async fn read(
        &self,
        survey: &mut Survey,
        memory: Option<&mut Memory>,
        proven: &mut BTreeSet<String>,
        all: &mut Verified,
    ) -> Result<()> {
        if !self.request.deep {
            return Ok(());
        }
        let mut parts = match (self.request.share, &memory) {
            (Some(share), Some(memory)) => memory.oldest(share),
            (Some(_), None) => {
                return Err(Error::usage(
                    "a share of all bytes can be proven only where it is remembered which",
                )
                .hint("state_dir must name a directory that this user can write to"));
            }
            (None, _) => memory::all_parts(),
        };
        let wanted = survey.wanted(|key| parts.contains(&memory::part_of(key)) && !proven.contains(key));
        let read = proving::prove_all(self.copy, &wanted, self.request).await?;
        all.bytes += read.bytes;
        proven.extend(wanted.iter().map(|object| object.key.clone()));
        for (key, error) in read.failed {
            proven.remove(&key);
            if may_be_sound(error.kind()) {
                parts.remove(&memory::part_of(&key));
            }
            if error.kind() != Kind::Absent || survey.is_needed(&key).await? {
                survey.fails(&key, &error);
            }
        }
        if let Some(memory) = memory.filter(|_| self.request.only.is_none() && self.copy.can_open()) {
            memory.were_proven(&parts, Timestamp::now());
        }
        Ok(())
    }

    /// Replaces what does not hold; says whether anything was, so that there is something new to look at.
    async fn repair(
        &self,
        survey: &mut Survey,
        other: &Archive,
        proven: &mut BTreeSet<String>,
        given_up: &mut BTreeSet<String>,
        all: &mut Verified,
    ) -> bool {
        survey.lost_manifests(other).await;
        let mut any = false;
        for problem in survey.problems_to_repair() {
            if given_up.contains(&problem.object) {
                continue;
            }
            match repair::repair(self.copy, other, &problem, survey.record(&problem.object)).await {
                Ok(()) => {
                    any = true;
                    proven.remove(&problem.object);
                    all.repaired.push(Problem { archive: self.name.to_owned(), ..problem });
                }
                Err(error) => {
                    all.notes.push(format!("{} was not repaired: {}", problem.object, error.story()));
                    given_up.insert(problem.object);
                }
            }
        }
        any
    }

    fn report(&self, survey: Survey, memory: Option<Memory>, broken_off: Option<Error>, all: &mut Verified) {
        let named = |mut problem: Problem| {
            problem.archive = self.name.to_owned();
            problem
        };
        let (backups, dumps) = survey.promises();
        if all.backups.is_empty() && all.dumps.is_empty() {
            (all.backups, all.dumps) = (backups, dumps);
        }
        if let Some(mut memory) = memory {
            if self.request.only.is_none() && broken_off.is_none() {
                survey.remember(&mut memory);
            }
            all.proven_since = memory.proven_since();
            if let Err(error) = memory.store() {
                all.notes.push(format!("what was proven is not remembered: {}", error.story()));
            }
        }
        if let Some(error) = broken_off {
            all.broken_off.get_or_insert(error);
        }
        if survey.problems.iter().any(|problem| problem.kind == UNREACHABLE) {
            all.unread = all.unread.or(survey.unread);
        }
        all.notes.extend(survey.notes);
        all.problems.extend(survey.problems.into_iter().map(named));
    }
}
