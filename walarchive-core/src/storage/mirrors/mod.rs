//! Several stores that hold the same archive.

mod store;
mod upload;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};
use tokio::sync::Semaphore;

use super::lazy::Lazy;
use super::steady::Steady;
use super::{Parts, Storage};
use crate::error::{Error, Kind, Result};
use crate::patience::Patience;

/// When one copy of an object is stored, the others have this long.
const OTHERS: Duration = Duration::from_secs(30);

/// When an object counts as stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// When every mirror has it.
    #[default]
    All,
    /// When any mirror has it; the others are caught up later.
    Any,
}

/// Hears what people, or later work, must know of single mirrors.
#[async_trait]
pub trait Witness: Send + Sync {
    /// An object is stored, but not in this mirror.
    async fn missed(&self, mirror: &str, key: &str, why: &Error);

    /// Something went well in spite of a mirror.
    fn notice(&self, text: &str);
}

/// Whether a store is one of the archive's; asked before the store is used or believed.
pub type Check = Arc<dyn Fn(Arc<dyn Storage>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Several stores with the same content, as one. The first is the primary: where names can collide, it decides before the
/// others are written, so that of two writers of one name one wins everywhere.
///
/// * **Stored** is what the [`Policy`] says. Only mirrors that cannot be reached, refuse, or fail by themselves may be
///   behind; other content under the same name is an error under either policy.
/// * **Absent** is what every mirror proved absent. If one cannot tell and none has it, the answer is that error.
/// * **Listings** are the union. Under [`Policy::All`] every mirror must be listed, under [`Policy::Any`] one, and the
///   witness hears which are left out.
/// * **Deleted** is what is gone from every mirror, under either policy.
#[derive(Clone)]
pub struct Mirrors {
    members: Vec<Member>,
    policy: Policy,
    patience: Patience,
    witness: Arc<dyn Witness>,
    parts: Parts,
}

#[derive(Clone)]
struct Member {
    name: String,
    store: Arc<dyn Storage>,
    /// Whether it was last found unreachable: then the others are asked first, and it is told once.
    failing: Arc<AtomicBool>,
}

impl Mirrors {
    /// `stores` by name (shown to people), the primary first; they are not patient themselves. There is at least one.
    pub fn new(
        stores: Vec<(String, Arc<dyn Storage>)>,
        policy: Policy,
        patience: Patience,
        witness: Arc<dyn Witness>,
    ) -> Mirrors {
        let parts = common_parts(stores.iter().map(|(_, store)| store.parts()));
        let member = |(name, store)| Member { name, store, failing: Arc::default() };
        Mirrors { members: stores.into_iter().map(member).collect(), policy, patience, witness, parts }
    }

    /// The same, where each store is used only once `check` has found it to be the right one.
    #[must_use]
    pub fn checked(&self, check: &Check) -> Mirrors {
        let mut mirrors = self.clone();
        for member in &mut mirrors.members {
            let (store, check) = (member.store.clone(), check.clone());
            let parts = store.parts();
            let opener = move || -> BoxFuture<'static, Result<Arc<dyn Storage>>> {
                let (store, check) = (store.clone(), check.clone());
                Box::pin(async move { check(store.clone()).await.map(|()| store) })
            };
            member.store = Arc::new(Lazy::new(Arc::new(opener), parts));
        }
        mirrors
    }

    /// Those mirrors alone; none if there is no such.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Option<Mirrors> {
        let members: Vec<_> = self.members.iter().filter(|member| wanted(&member.name)).cloned().collect();
        (!members.is_empty()).then(|| Mirrors { members, ..self.clone() })
    }

    /// The same mirrors, none of which may be left out, for whoever removes what no mirror needs.
    #[must_use]
    pub fn strict(&self) -> Mirrors {
        Mirrors { policy: Policy::All, ..self.clone() }
    }

    /// Each store by name, the primary first, with patience.
    pub fn stores(&self) -> Vec<(String, Arc<dyn Storage>)> {
        self.members.iter().map(|member| (member.name.clone(), self.patient(member.store.clone()))).collect()
    }

    /// Each store by name, the primary first, without patience.
    pub fn stores_once(&self) -> Vec<(String, Arc<dyn Storage>)> {
        self.members.iter().map(|member| (member.name.clone(), member.store.clone())).collect()
    }

    /// One of the stores, with patience.
    pub fn patient(&self, store: Arc<dyn Storage>) -> Arc<dyn Storage> {
        Arc::new(Steady::new(store, self.patience.clone()))
    }

    /// When an object counts as stored.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Reads from the first mirror that `read` succeeds with, the last ones being those that were unreachable.
    ///
    /// # Errors
    ///
    /// If none will do: the error of one that could not tell, else of one that is damaged; `Absent` only if all say so.
    /// What concerns all mirrors (wrong usage, another archive) ends it at once.
    pub async fn first<T, F>(&self, read: impl Fn(Arc<dyn Storage>) -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        self.patience.run(|| self.first_now(&read)).await
    }

    async fn first_now<T, F>(&self, read: &(impl Fn(Arc<dyn Storage>) -> F + Send + Sync)) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let (last, now): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().partition(|member| member.failing.load(Ordering::Relaxed));
        let mut failed: Vec<(&Member, Error)> = Vec::new();
        for member in now.into_iter().chain(last) {
            match read(member.store.clone()).await {
                Ok(found) => {
                    member.failing.store(false, Ordering::Relaxed);
                    for (other, error) in &failed {
                        self.passed_over(other, error);
                    }
                    return Ok(found);
                }
                Err(error) if !may_differ(error.kind()) => return Err(member.named(error)),
                Err(error) => failed.push((member, error)),
            }
        }
        for (member, error) in &failed {
            member.failing.fetch_or(error.kind().is_transient(), Ordering::Relaxed);
        }
        Err(worst(failed))
    }

    fn passed_over(&self, member: &Member, error: &Error) {
        let told = match error.kind() {
            Kind::Absent => return,
            Kind::Damaged | Kind::Key => {
                format!(
                    "the copy in {} is damaged, another one was read instead: {}",
                    member.name,
                    error.story()
                )
            }
            _ if member.failing.swap(true, Ordering::Relaxed) => return,
            _ => format!("{} cannot be read, another mirror is: {}", member.name, error.story()),
        };
        self.witness.notice(&told);
    }

    /// Writes to each mirror, as the policy says. Gives the results of those that succeeded; the witness has heard
    /// of the others then.
    pub async fn write<T, F>(
        &self,
        key: &str,
        write: impl Fn(usize, Arc<dyn Storage>) -> F + Send + Sync,
    ) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        match self.policy {
            Policy::All => self.write_all(&write).await,
            Policy::Any => self.patience.run(|| self.write_any(key, &write)).await,
        }
    }

    async fn write_all<T, F>(
        &self,
        write: &(impl Fn(usize, Arc<dyn Storage>) -> F + Send + Sync),
    ) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let one = |(number, member): (usize, &Member)| write(number, self.patient(member.store.clone()));
        let mut members = self.members.iter().enumerate();
        let mut done = Vec::new();
        if let Some((number, primary)) = members.next() {
            done.push(one((number, primary)).await.map_err(|error| primary.named(error))?);
        }
        let others: Vec<_> = members.map(one).collect();
        let mut failed = Vec::new();
        for (member, result) in self.members.iter().skip(1).zip(join_all(others).await) {
            match result {
                Ok(value) => done.push(value),
                Err(error) => failed.push((member, error)),
            }
        }
        if failed.is_empty() { Ok(done) } else { Err(worst(failed)) }
    }

    async fn write_any<T, F>(
        &self,
        key: &str,
        write: &(impl Fn(usize, Arc<dyn Storage>) -> F + Send + Sync),
    ) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        let mut members = self.members.iter().enumerate();
        for (number, member) in members.by_ref() {
            match write(number, member.store.clone()).await {
                Ok(value) => {
                    done.push(value);
                    break;
                }
                Err(error) if may_be_behind(error.kind()) => failed.push((member, error)),
                Err(error) => return Err(member.named(error)),
            }
        }
        if done.is_empty() {
            return Err(worst(failed));
        }
        let others = members.map(|(number, member)| async move {
            let written = tokio::time::timeout(OTHERS, write(number, member.store.clone())).await;
            let late =
                || Error::new(Kind::Unreachable, format!("storing took longer than {} s", OTHERS.as_secs()));
            (member, written.unwrap_or_else(|_| Err(late())))
        });
        for (member, result) in join_all(others.collect::<Vec<_>>()).await {
            match result {
                Ok(value) => done.push(value),
                Err(error) if may_be_behind(error.kind()) => failed.push((member, error)),
                Err(error) => return Err(member.named(error)),
            }
        }
        for (member, error) in failed {
            self.witness.missed(&member.name, key, &error).await;
        }
        Ok(done)
    }

    /// Asks each mirror for a list; gives them with the mirrors' numbers.
    async fn gather<T, F>(
        &self,
        list: impl Fn(Arc<dyn Storage>) -> F + Send + Sync,
    ) -> Result<Vec<(usize, T)>>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        self.patience.run(|| self.gather_now(&list)).await
    }

    async fn gather_now<T, F>(
        &self,
        list: &(impl Fn(Arc<dyn Storage>) -> F + Send + Sync),
    ) -> Result<Vec<(usize, T)>>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let lists: Vec<_> = self.members.iter().map(|member| list(member.store.clone())).collect();
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (number, (member, listed)) in self.members.iter().zip(join_all(lists).await).enumerate() {
            match listed {
                Ok(listed) => done.push((number, listed)),
                Err(error) if may_be_behind(error.kind()) => failed.push((member, error)),
                Err(error) => return Err(member.named(error)),
            }
        }
        if failed.is_empty() {
            return Ok(done);
        }
        if done.is_empty() || self.policy == Policy::All {
            let only = "to work with the other mirrors alone, name only them";
            return Err(match done.is_empty() {
                true => worst(failed),
                false => worst(failed).hint(only),
            });
        }
        for (member, error) in &failed {
            if !member.failing.swap(true, Ordering::Relaxed) {
                let name = &member.name;
                self.witness.notice(&format!(
                    "what only {name} holds is left out, as it cannot be listed: {}",
                    error.story()
                ));
            }
        }
        Ok(done)
    }
}

impl Member {
    fn named(&self, error: Error) -> Error {
        error.during(&self.name)
    }
}

impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.members.iter().map(|member| &member.name).collect();
        write!(f, "Mirrors({:?}, {names:?})", self.policy)
    }
}

/// Whether a failure to read may be one mirror's alone.
fn may_differ(kind: Kind) -> bool {
    may_be_behind(kind) || matches!(kind, Kind::Absent | Kind::Damaged | Kind::Key)
}

/// Whether a failure to write is one mirror's, and does not call into question what is stored.
fn may_be_behind(kind: Kind) -> bool {
    matches!(kind, Kind::Unreachable | Kind::Denied | Kind::Local)
}

/// The error that counts: of a mirror that has something else to say, else of one that could not tell, else of a
/// damaged one; that nothing is there counts only when all say so.
fn worst(failed: Vec<(&Member, Error)>) -> Error {
    let rank = |kind: Kind| match kind {
        Kind::Absent => 5,
        Kind::Key => 4,
        Kind::Damaged => 3,
        Kind::Local => 2,
        Kind::Denied => 1,
        Kind::Unreachable => 0,
        _ => -1,
    };
    let worst = failed.into_iter().min_by_key(|(_, error)| rank(error.kind()));
    match worst {
        Some((_, error)) if error.kind() == Kind::Absent => error,
        Some((member, error)) => member.named(error),
        None => Error::bug("an archive has no place"),
    }
}

/// Parts that suit every store: one cut, and no more memory than the most careful one allows.
fn common_parts(all: impl Iterator<Item = Parts>) -> Parts {
    let all: Vec<Parts> = all.collect();
    let size = all.iter().map(|parts| parts.size).max().unwrap_or(1).max(1);
    let most = all.iter().map(|parts| parts.most).min().unwrap_or(1);
    let memory = all
        .iter()
        .map(|parts| parts.budget.available_permits().saturating_mul(parts.size))
        .min()
        .unwrap_or(0);
    let permits = (memory / size).clamp(1, Semaphore::MAX_PERMITS);
    Parts { size, most, budget: Arc::new(Semaphore::new(permits)) }
}
