//! What is stored, given to other readers.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::archive::{Archive, ClusterName, NewHeads, ObjectKind, Rotation, kind_of};
use crate::error::{Error, Kind, Result, Troubles};
use crate::progress::Progress;
use crate::storage::Entry;

/// What is to be given to whom.
pub struct RotateRequest {
    /// The archive, opened with identities of today's readers and with the recipients that are to read it.
    pub archive: Archive,
    /// Only this cluster.
    pub cluster: Option<ClusterName>,
    /// What becomes of heads.
    pub rotation: Rotation,
    /// Objects that are changed at once.
    pub jobs: usize,
    /// Hears how far it is.
    pub progress: Arc<dyn Progress>,
}

/// What was changed, or would be.
#[derive(Debug, Default)]
pub struct Rotated {
    /// Objects.
    pub objects: u64,
    /// Their stored bytes: no store changes the head of an object alone.
    pub bytes: u64,
    /// Objects that are as they should be.
    pub current: u64,
    /// The keys of those that nobody had signed.
    pub signed: Vec<String>,
    /// What was left as it is, and why.
    pub problems: Troubles,
}

/// Gives every object a head for the archive's recipients; nobody else can open it then. Each object is replaced in one step, its
/// payload proven as it passes, so the archive works at every moment, and what was interrupted goes on where it was. Leases
/// are left alone. Nothing may be removed from the archive at the same time.
///
/// # Errors
///
/// When it could not begin, or the store cannot replace objects; what could not be changed is told in the result.
pub async fn rotate(request: &RotateRequest) -> Result<Rotated> {
    if !request.archive.info().encrypted() {
        return Err(Error::usage("the archive is not encrypted: everybody who reaches it reads it")
            .hint("'walarchive copy --to URL --recipient …' makes an encrypted copy of it"));
    }
    if !request.archive.can_open() {
        return Err(Error::new(
            Kind::Key,
            "there is no identity that opens what is stored, so it cannot be given to others",
        )
        .hint("name the file of a reader's key in encryption.identity_file or WALARCHIVE_IDENTITY_FILE"));
    }
    let entries = objects(request).await?;
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    let what = if request.rotation.dry_run { "looking" } else { "rotating" };
    request.progress.begin(what, total);
    let mut rotated = Rotated::default();
    let mut results = futures::stream::iter(&entries)
        .map(|entry| async move { (entry, request.archive.rotate(&entry.key, request.rotation).await) })
        .buffer_unordered(request.jobs.max(1));
    while let Some((entry, result)) = results.next().await {
        match result.and_then(|heads| request.progress.advance(entry.size).map(|()| heads)) {
            Ok(NewHeads { bytes: 0, .. }) => rotated.current += 1,
            Ok(NewHeads { bytes, signed }) => {
                rotated.objects += 1;
                rotated.bytes += bytes;
                rotated.signed.extend(signed.then(|| entry.key.clone()));
            }
            // What was removed since it was listed.
            Err(error) if error.kind() == Kind::Absent => {}
            Err(error) if error.kind() == Kind::Usage => {
                request.progress.end();
                return Err(error.hint(format!(
                    "{} bytes in {} objects are to be stored anew: 'walarchive copy --to URL --recipient …' does so in another place",
                    total,
                    entries.len()
                )));
            }
            Err(error) => {
                let is_over = error.kind().concerns_all();
                rotated.problems.add(&entry.key, error);
                if is_over {
                    break;
                }
            }
        }
    }
    drop(results);
    request.progress.end();
    Ok(rotated)
}

async fn objects(request: &RotateRequest) -> Result<Vec<Entry>> {
    let prefix = request.cluster.as_ref().map_or_else(String::new, ClusterName::to_string);
    let mut entries: Vec<Entry> = request.archive.storage().list(&prefix).try_collect().await?;
    entries.retain(|entry| kind_of(&entry.key).is_some_and(|(kind, _)| kind != ObjectKind::Lease));
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(entries)
}
