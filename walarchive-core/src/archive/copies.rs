//! An archive that several stores hold: the same objects, byte by byte, in each.

use std::future::Future;
use std::sync::Arc;

use super::{Archive, ArchiveInfo, ObjectKind, Taker};
use crate::error::{Error, Kind, Result};
use crate::storage::{Check, Mirrors, Policy, Storage};

/// Reads the description of an archive. Mirrors are then used only once each is proven to have the same one.
pub(super) async fn proven(storage: Arc<dyn Storage>) -> Result<(Arc<dyn Storage>, ArchiveInfo)> {
    let Some(mirrors) = storage.mirrors() else {
        let info = ArchiveInfo::read(storage.as_ref()).await?;
        return Ok((storage, info));
    };
    let info = mirrors.first(|store| async move { ArchiveInfo::read(store.as_ref()).await }).await?;
    let expected = info.clone();
    let check: Check = Arc::new(move |store| {
        let expected = expected.clone();
        Box::pin(async move { same(&expected, &ArchiveInfo::read(store.as_ref()).await?) })
    });
    let checked = mirrors.checked(&check);
    Ok((Arc::new(checked), info))
}

fn same(one: &ArchiveInfo, other: &ArchiveInfo) -> Result<()> {
    if one == other {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!("this is archive {}, and another mirror is archive {}: they are not copies of one another", other.id(), one.id()),
    )
    .hint("mirrors of a new archive are made by 'walarchive init' in empty places; name only one of these two archives"))
}

/// Gives all mirrors the same description: the one that some have, or else `wanted`. Says whether it is new anywhere.
pub(super) async fn describe(mirrors: &Mirrors, wanted: ArchiveInfo) -> Result<(ArchiveInfo, bool)> {
    let stores = mirrors.stores();
    let mut known: Option<(&str, ArchiveInfo)> = None;
    for (name, store) in &stores {
        let found = ArchiveInfo::find(store.as_ref()).await.map_err(|error| error.during(name))?;
        match (&known, found) {
            (Some((_, one)), Some(found)) => same(one, &found).map_err(|error| error.during(name))?,
            (None, Some(found)) => known = Some((name.as_str(), found)),
            (_, None) => {}
        }
    }
    let mut info = known.map_or(wanted, |(_, info)| info);
    let mut new = false;
    for (number, (name, store)) in stores.iter().enumerate() {
        let (stored, is_new) =
            info.clone().create(store.as_ref()).await.map_err(|error| error.during(name))?;
        // Where two make the same archive at the same moment, the primary decides.
        match number {
            0 => info = stored,
            _ => same(&info, &stored).map_err(|error| error.during(name))?,
        }
        new |= is_new;
    }
    Ok((info, new))
}

/// Takes nothing.
struct Nobody;

impl Taker for Nobody {
    fn take(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl Archive {
    /// The same archive in another store.
    pub(super) fn with(&self, storage: Arc<dyn Storage>) -> Archive {
        Archive { storage, ..self.clone() }
    }

    /// Whether several stores hold the archive.
    pub fn is_mirrored(&self) -> bool {
        self.storage.mirrors().is_some()
    }

    /// The archive in each of its stores, by the store's name, the primary first. Where there is one store alone, its name
    /// is empty.
    pub fn copies(&self) -> Vec<(String, Archive)> {
        match self.storage.mirrors() {
            Some(mirrors) => self.with_each(mirrors.stores()),
            None => vec![(String::new(), self.clone())],
        }
    }

    /// The same; their calls are not tried again.
    pub fn copies_once(&self) -> Vec<(String, Archive)> {
        match self.storage.mirrors() {
            Some(mirrors) => self.with_each(mirrors.stores_once()),
            None => self.copies(),
        }
    }

    fn with_each(&self, stores: Vec<(String, Arc<dyn Storage>)>) -> Vec<(String, Archive)> {
        stores.into_iter().map(|(name, store)| (name, self.with(store))).collect()
    }

    /// The archive as far as the mirrors of these names hold it; all of it where it has one store.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Option<Archive> {
        match self.storage.mirrors() {
            Some(mirrors) => mirrors.only(wanted).map(|mirrors| self.with(Arc::new(mirrors))),
            None => Some(self.clone()),
        }
    }

    /// Reads from any of the copies: from the first with which `read` succeeds. The error is that of a copy that could not
    /// tell, else of a damaged one; `Absent` only if every copy proved it.
    pub async fn from_any<T, F>(&self, read: impl Fn(Archive) -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        match self.storage.mirrors() {
            Some(mirrors) => mirrors.first(|store| read(self.with(store))).await,
            None => read(self.clone()).await,
        }
    }

    /// Whether an object is stored as far as the policy demands: in every mirror, or in any.
    pub async fn is_stored(&self, key: &str) -> Result<bool> {
        let everywhere = self.storage.mirrors().is_some_and(|mirrors| mirrors.policy() == Policy::All);
        let stores = if everywhere { self.copies() } else { vec![(String::new(), self.clone())] };
        for (_, copy) in stores {
            match copy.storage.size(key).await {
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Absent => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// A copy in which the whole object was just found to be undamaged; where there is only one, that one, unread.
    pub async fn sound_copy(&self, key: &str, kind: ObjectKind) -> Result<Archive> {
        let Some(mirrors) = self.storage.mirrors() else { return Ok(self.clone()) };
        let prove = |copy: Archive| async move {
            copy.read(key, kind, u64::MAX, Nobody).await?;
            Ok(copy)
        };
        let copy = self.from_any(prove).await?;
        Ok(self.with(mirrors.patient(copy.storage)))
    }
}
