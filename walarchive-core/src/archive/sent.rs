//! Objects read back as they are stored, which needs no key.

use super::Archive;
use crate::error::{Error, Kind, Result};
use crate::storage::{Policy, Storage};

/// Bytes that are read at once.
const STEP: u64 = 4 << 20;

impl Archive {
    /// Reads an object back and holds it against the digest of what was sent. Of mirrors each is read; one that may be away
    /// by the policy need not have it, if another does.
    ///
    /// # Errors
    ///
    /// `Damaged` when what the store gives is not what was sent.
    pub(crate) async fn prove_sent(&self, key: &str, stored: u64, sent: blake3::Hash) -> Result<()> {
        let Some(mirrors) = self.storage.mirrors() else {
            return prove(self.storage.as_ref(), key, stored, sent).await;
        };
        let (mut proven, mut away) = (false, None);
        for (name, store) in mirrors.stores() {
            match prove(store.as_ref(), key, stored, sent).await {
                Ok(()) => proven = true,
                Err(error)
                    if mirrors.policy() == Policy::Any
                        && matches!(error.kind(), Kind::Absent | Kind::Unreachable) =>
                {
                    away = Some(error.during(&name));
                }
                Err(error) => return Err(error.during(&name)),
            }
        }
        match away {
            Some(error) if !proven => Err(error),
            _ => Ok(()),
        }
    }
}

async fn prove(store: &dyn Storage, key: &str, stored: u64, sent: blake3::Hash) -> Result<()> {
    let mut digest = blake3::Hasher::new();
    let mut at = 0;
    while at < stored {
        let end = stored.min(at + STEP);
        let part = store.get(key, Some(at..end)).await?;
        if part.object_size != stored || part.bytes.len() as u64 != end - at {
            return Err(Error::damaged("the store gives back another length than was sent").on(key));
        }
        digest.update(&part.bytes);
        at = end;
    }
    if digest.finalize() != sent {
        return Err(Error::damaged("the store gives back something else than was sent").on(key));
    }
    Ok(())
}
