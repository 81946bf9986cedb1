//! A large object on its way to several mirrors.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use super::{Member, Mirrors, Policy, may_be_behind, worst};
use crate::error::{Error, Result};
use crate::storage::Upload;

/// The uploads to all mirrors. Under [`Policy::Any`] a mirror that fails while another goes on is left behind.
pub(super) struct MirrorUpload {
    mirrors: Mirrors,
    key: String,
    lanes: Vec<Lane>,
}

struct Lane {
    member: Member,
    upload: Option<Box<dyn Upload>>,
    /// Why this mirror was left behind.
    lost: Mutex<Option<Error>>,
}

impl Lane {
    fn is_lost(&self) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn lose(&self, error: Error) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl MirrorUpload {
    pub(super) async fn start(mirrors: &Mirrors, key: &str) -> Result<MirrorUpload> {
        let lanes = match mirrors.policy {
            Policy::All => begin(mirrors, key, true).await?,
            Policy::Any => mirrors.patience.run(|| begin(mirrors, key, false)).await?,
        };
        Ok(MirrorUpload { mirrors: mirrors.clone(), key: key.to_owned(), lanes })
    }

    async fn on_all<'a>(
        &'a self,
        act: impl Fn(&'a dyn Upload) -> BoxFuture<'a, Result<()>> + Send + Sync,
    ) -> Result<()> {
        let act = &act;
        match self.mirrors.policy {
            Policy::All => self.try_all(act).await,
            Policy::Any => self.mirrors.patience.run(|| self.try_all(act)).await,
        }
    }

    async fn try_all<'a>(
        &'a self,
        act: &(impl Fn(&'a dyn Upload) -> BoxFuture<'a, Result<()>> + Send + Sync),
    ) -> Result<()> {
        let going: Vec<(&Lane, &'a dyn Upload)> = self
            .lanes
            .iter()
            .filter(|lane| !lane.is_lost())
            .filter_map(|lane| Some((lane, lane.upload.as_deref()?)))
            .collect();
        let results = join_all(going.iter().map(|(_, upload)| act(*upload))).await;
        let failed: Vec<_> = going
            .iter()
            .zip(results)
            .filter_map(|((lane, _), result)| result.err().map(|error| (*lane, error)))
            .collect();
        let bearable = self.mirrors.policy == Policy::Any
            && failed.len() < going.len()
            && failed.iter().all(|(_, error)| may_be_behind(error.kind()));
        if !bearable && !failed.is_empty() {
            return Err(worst(failed.into_iter().map(|(lane, error)| (&lane.member, error)).collect()));
        }
        for (lane, error) in failed {
            lane.lose(error);
        }
        Ok(())
    }
}

/// Starts the upload in every mirror, or in those that can under [`Policy::Any`].
async fn begin(mirrors: &Mirrors, key: &str, patient: bool) -> Result<Vec<Lane>> {
    let starts = mirrors.members.iter().map(|member| {
        let store = if patient { mirrors.patient(member.store.clone()) } else { member.store.clone() };
        async move { store.upload(key).await }
    });
    let results = join_all(starts.collect::<Vec<_>>()).await;
    let begun = results.iter().filter(|result| result.is_ok()).count();
    let bearable = mirrors.policy == Policy::Any && begun > 0;
    let (mut lanes, mut failed) = (Vec::new(), Vec::new());
    for (member, result) in mirrors.members.iter().zip(results) {
        let (upload, lost) = match result {
            Ok(upload) => (Some(upload), None),
            Err(error) if bearable && may_be_behind(error.kind()) => (None, Some(error)),
            Err(error) => {
                failed.push((member, error));
                continue;
            }
        };
        lanes.push(Lane { member: member.clone(), upload, lost: Mutex::new(lost) });
    }
    if failed.is_empty() {
        return Ok(lanes);
    }
    for upload in lanes.iter().filter_map(|lane| lane.upload.as_deref()) {
        // What is left is swept later.
        let _ = upload.abort().await;
    }
    Err(worst(failed))
}

#[async_trait]
impl Upload for MirrorUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        self.on_all(move |upload| upload.part(number, pieces.clone())).await
    }

    async fn finish(&self) -> Result<()> {
        self.on_all(|upload| upload.finish()).await?;
        for lane in &self.lanes {
            let lost = lane.lost.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(error) = lost {
                // Nothing is given up that could still be made visible there.
                if let Some(upload) = &lane.upload {
                    let _ = upload.abort().await;
                }
                self.mirrors.witness.missed(&lane.member.name, &self.key, &error).await;
                lane.lose(error);
            }
        }
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        let uploads: Vec<_> =
            self.lanes.iter().filter_map(|lane| Some((lane, lane.upload.as_deref()?))).collect();
        let results = join_all(uploads.iter().map(|(_, upload)| upload.abort())).await;
        let failed = uploads.iter().zip(results).filter(|((lane, _), _)| !lane.is_lost());
        let failed: Vec<_> = failed
            .filter_map(|((lane, _), result)| result.err().map(|error| (&lane.member, error)))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(worst(failed)) }
    }
}
