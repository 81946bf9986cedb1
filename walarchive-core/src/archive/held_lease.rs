//! The lease of a running backup, or of a run of dumps: as long as it lasts, nobody removes packs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;

use super::{Archive, BackupId, ObjectKind, Place};
use crate::codec::{Codec, PlainSink};
use crate::error::{Error, Kind, Result};

/// The pause after a renewal that failed is this part of the lease's duration.
const AGAIN: u32 = 20;

impl Archive {
    /// Takes away the leases of what is over. One that stays behind ends by itself.
    pub(crate) async fn end_leases(&self, place: &Place, id: &BackupId) {
        let leases: Result<Vec<_>> = self.storage.list(&place.lease_prefix(id)).try_collect().await;
        for lease in leases.unwrap_or_default() {
            let _ = self.storage.delete(&lease.key).await;
        }
    }
}

/// A lease that is renewed well before it ends. One that ended is never renewed: what it protected may be gone.
#[derive(Clone)]
pub struct HeldLease {
    archive: Archive,
    place: Place,
    id: BackupId,
    codec: Arc<dyn Codec>,
    lasts: Duration,
    until: Arc<Mutex<Timestamp>>,
}

impl HeldLease {
    /// Takes the lease. It must be there before the backup's first object.
    pub async fn take(
        archive: Archive,
        place: Place,
        id: BackupId,
        codec: Arc<dyn Codec>,
        lasts: Duration,
    ) -> Result<HeldLease> {
        let lease =
            HeldLease { archive, place, id, codec, lasts, until: Arc::new(Mutex::new(Timestamp::MIN)) };
        lease.write().await?;
        Ok(lease)
    }

    /// Writes a new end. Earlier leases stay until the backup is over: a listing that is going on must not miss both.
    async fn write(&self) -> Result<()> {
        let begin = Timestamp::now();
        let until = begin.checked_add(self.lasts).unwrap_or(Timestamp::MAX);
        // Keys tell whole seconds.
        let expiry = until.checked_add(Duration::from_secs(1)).unwrap_or(until);
        let note = format!("{{\"backup\":\"{}\",\"until\":\"{expiry}\"}}\n", self.id);
        let content = move |sink: PlainSink<'_>| sink(note.as_bytes());
        let key = self.place.lease(&self.id, expiry);
        self.archive.put(&key, ObjectKind::Lease, self.codec.clone(), content).await?;
        let mut held = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        // One that came too late leaves a time without protection.
        if *held == Timestamp::MIN || Timestamp::now() < *held {
            *held = until;
        }
        Ok(())
    }

    /// Renews the lease, for as long as it is polled.
    pub async fn keep(&self) {
        let mut pause = self.lasts / 3;
        loop {
            tokio::time::sleep(pause).await;
            if self.check().is_err() {
                // The backup finds out when it is to be committed.
                return std::future::pending().await;
            }
            pause = if self.write().await.is_ok() { self.lasts / 3 } else { self.lasts / AGAIN };
        }
    }

    /// Whether the lease still lasts: if it does not, what the backup stored may be gone.
    pub fn check(&self) -> Result<()> {
        if Timestamp::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Busy,
            format!(
                "{} {} could not renew its lease in time and is not committed: 'prune' may have removed its packs",
                self.place.noun(),
                self.id
            ),
        )
        .hint("was this machine suspended, or the store out of reach? Start again, with a longer backup.lease if need be"))
    }

    /// The lease is of no use any more.
    pub async fn end(&self) {
        self.archive.end_leases(&self.place, &self.id).await;
    }
}
