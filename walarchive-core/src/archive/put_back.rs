//! An archive's description put back where it was lost, from another copy of the archive.

use std::sync::Arc;

use futures::TryStreamExt;

use super::key::ARCHIVE_JSON;
use super::{Archive, ArchiveInfo, kind_of};
use crate::error::{Error, Kind, Result};
use crate::storage::{Created, Storage};

/// So many objects are asked which archive they are of, before it is given up.
const ASKED: usize = 64;

impl Archive {
    /// Puts this archive's description into a store whose own is missing or damaged, if the objects there prove that they are of this
    /// archive. Gives what was wrong with it; nothing where it holds.
    ///
    /// # Errors
    ///
    /// When nothing there proves it, or the store fails. What is there is not changed then.
    pub async fn put_back(&self, storage: Arc<dyn Storage>) -> Result<Option<Error>> {
        let (wrong, is_there) = match ArchiveInfo::find(storage.as_ref()).await {
            Ok(Some(_)) => match ArchiveInfo::prove(storage.as_ref()).await {
                Err(error) if error.kind() == Kind::Damaged => (error, true),
                proven => return proven.map(|_| None),
            },
            Ok(None) => (Error::new(Kind::Absent, "archive.json is missing").on(ARCHIVE_JSON), false),
            Err(error) if error.kind() == Kind::Damaged => (error, true),
            Err(error) => return Err(error),
        };
        let own = ArchiveInfo::prove(self.storage.as_ref())
            .await
            .map_err(|error| error.during("looking at the other copy"))?;
        self.are_ours(&storage, is_there).await?;
        if is_there {
            storage.delete(ARCHIVE_JSON).await?;
        }
        let put = storage.create(ARCHIVE_JSON, vec![own.to_bytes()?.into()]).await?;
        match ArchiveInfo::prove(storage.as_ref()).await? == own {
            true => Ok(Some(wrong)),
            false if put == Created::Exists => {
                Err(Error::new(Kind::Conflict, "somebody else put another description there")
                    .on(ARCHIVE_JSON))
            }
            false => Err(Error::damaged("archive.json is not what was just stored").on(ARCHIVE_JSON)),
        }
    }

    /// Proves that the objects of a store are of this archive: one that holds is enough.
    async fn are_ours(&self, storage: &Arc<dyn Storage>, is_there: bool) -> Result<()> {
        let copy = self.with(storage.clone());
        let mut entries = storage.list("");
        let (mut asked, mut first) = (0, None);
        while let Some(entry) = entries.try_next().await? {
            if kind_of(&entry.key).is_none() {
                continue;
            }
            match copy.prove(&entry.key, None).await {
                Ok(_) => return Ok(()),
                Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Key | Kind::Absent) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
            asked += 1;
            if asked == ASKED {
                break;
            }
        }
        let what = if is_there { "damaged" } else { "missing" };
        let id = self.info.id();
        Err(match first {
            Some(error) => Error::damaged(format!(
                "archive.json is {what}, and none of {asked} objects beside it proves to be of archive {id}, which the other copy is of"
            ))
            .because(error),
            None => Error::new(
                if is_there { Kind::Damaged } else { Kind::Unreachable },
                format!("archive.json is {what}, and nothing is stored beside it that would prove that this is archive {id}"),
            )
            .hint("is it mounted, and is the URL right? 'walarchive copy' fills an empty place"),
        }
        .on(ARCHIVE_JSON))
    }
}
