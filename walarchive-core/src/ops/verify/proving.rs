//! Reading all bytes of objects, several at once.

use futures::StreamExt;

use super::VerifyRequest;
use super::survey::Object;
use crate::archive::Archive;
use crate::error::{Error, Kind, Result};

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Stored bytes that hold.
    pub(super) bytes: u64,
    /// What does not hold, or could not be read.
    pub(super) failed: Vec<(String, Error)>,
}

/// Whether a failure is one object's, and the others are to be looked at still.
pub(super) fn is_of_one(kind: Kind) -> bool {
    matches!(kind, Kind::Damaged | Kind::Key | Kind::Absent | Kind::Denied | Kind::Local)
}

/// Proves objects. What retention has removed meanwhile is passed over by whoever knows who needs it.
///
/// # Errors
///
/// When it cannot be told whether something holds.
pub(super) async fn prove_all(
    archive: &Archive,
    objects: &[Object],
    request: &VerifyRequest,
) -> Result<Read> {
    request.progress.begin("proving", objects.iter().map(|object| object.size).sum());
    let mut proofs = futures::stream::iter(objects)
        .map(|object| async move { (object, archive.prove(&object.key, object.record.as_deref()).await) })
        .buffer_unordered(request.jobs.max(1));
    let mut read = Read::default();
    while let Some((object, proof)) = proofs.next().await {
        request.progress.advance(object.size)?;
        match proof {
            Ok(proven) if proven.opened => read.bytes += proven.stored,
            Ok(_) => {}
            Err(error) if is_of_one(error.kind()) => {
                read.failed.push((object.key.clone(), error));
            }
            Err(error) => {
                request.progress.end();
                return Err(error.during("proving what is stored"));
            }
        }
    }
    request.progress.end();
    Ok(read)
}
