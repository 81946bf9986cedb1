//! What is done with a cluster: one function for each flow.

use std::ffi::c_char;
use std::sync::Arc;

use serde_json::{Value, json};
use walarchive_core::ops::restore::Target;
use walarchive_core::progress::Silent;
use walarchive_core::told::many;
use walarchive_core::{Cluster, Error, Result};

use crate::cluster::{opened, walarchive_cluster};
use crate::guard::{give_text, guard, needed, path, text, walarchive_error};
use crate::progress::{progress, walarchive_progress};

/// Stores a complete WAL file under its name, as archive_command asks for: 0 means that the archive durably holds just this
/// content. `callbacks` are asked ten times a second whether to go on.
///
/// # Safety
///
/// `cluster` came from walarchive_open; strings end in NUL; `callbacks` is null or fulfils its contract; `error` is null or may
/// be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_wal_push(
    cluster: *const walarchive_cluster,
    file: *const c_char,
    callbacks: *const walarchive_progress,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let (this, file, progress) =
            unsafe { (opened(cluster)?, path(file, "the WAL file's path")?, progress(callbacks)) };
        this.blocking.wait(this.cluster(progress)?.push(file)).map(drop)
    })
}

/// Fetches a WAL file to `dest`, as restore_command asks for: `dest` appears when every byte was proven. 1 means that the file is
/// proven to be absent. `callbacks` are asked ten times a second whether to go on.
///
/// # Safety
///
/// `cluster` came from walarchive_open; strings end in NUL; `callbacks` is null or fulfils its contract; `error` is null or may
/// be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_wal_fetch(
    cluster: *const walarchive_cluster,
    name: *const c_char,
    dest: *const c_char,
    callbacks: *const walarchive_progress,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let (this, name, dest, progress) = unsafe {
            (
                opened(cluster)?,
                needed(name, "the WAL file's name")?,
                path(dest, "the destination")?,
                progress(callbacks),
            )
        };
        this.blocking.wait(this.cluster(progress)?.fetch(&name.parse()?, dest)).map(drop)
    })
}

/// Gives what `look` finds, as JSON.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `json` and `error` are null or may be written to.
unsafe fn tell(
    cluster: *const walarchive_cluster,
    json: *mut *mut c_char,
    error: *mut *mut walarchive_error,
    look: impl AsyncFnOnce(Cluster) -> Result<Value>,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let this = unsafe { opened(cluster) }?;
        let found = this.blocking.wait(look(this.cluster(Arc::new(Silent))?))?;
        // SAFETY: as the caller promises.
        unsafe { give_text(json, found.to_string()) };
        Ok(())
    })
}

/// The WAL that is stored, as `walarchive wal list --json` tells it.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `json` and `error` are null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_wal_list(
    cluster: *const walarchive_cluster,
    json: *mut *mut c_char,
    error: *mut *mut walarchive_error,
) -> u32 {
    let look = async |cluster: Cluster| {
        serde_json::to_value(cluster.wal().await?)
            .map_err(|error| Error::bug("a list has no JSON").because(error))
    };
    // SAFETY: as the caller promises.
    unsafe { tell(cluster, json, error, look) }
}

/// The backups that are stored, oldest first, as `walarchive backup list --json` tells them (without what they share).
///
/// # Safety
///
/// `cluster` came from walarchive_open; `json` and `error` are null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_backup_list(
    cluster: *const walarchive_cluster,
    json: *mut *mut c_char,
    error: *mut *mut walarchive_error,
) -> u32 {
    let look = async |cluster: Cluster| {
        let backups = cluster.backups().await?;
        let backups: Vec<Value> = backups.iter().map(|backup| backup.document(None)).collect();
        Ok(json!({ "backups": backups }))
    };
    // SAFETY: as the caller promises.
    unsafe { tell(cluster, json, error, look) }
}

/// What can be restored and what stands in the way, as `walarchive status --json` tells it.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `json` and `error` are null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_status(
    cluster: *const walarchive_cluster,
    json: *mut *mut c_char,
    error: *mut *mut walarchive_error,
) -> u32 {
    let look = async |cluster: Cluster| Ok(cluster.status().await?.document());
    // SAFETY: as the caller promises.
    unsafe { tell(cluster, json, error, look) }
}

/// Backs up the server that the settings name, as `walarchive backup create` does. 0 means that the backup is stored, and can be
/// restored; `json` tells of it, and of pages that are damaged on the server's disk.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `callbacks` is null or fulfils its contract; `json` and `error` are null or may be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_backup_create(
    cluster: *const walarchive_cluster,
    full: bool,
    callbacks: *const walarchive_progress,
    json: *mut *mut c_char,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let (this, progress) = unsafe { (opened(cluster)?, progress(callbacks)) };
        let request = this.cluster(progress)?.backup();
        let request = if full { request.full() } else { request };
        let done = this.blocking.wait(request.run())?;
        // SAFETY: as the caller promises.
        unsafe { give_text(json, done.backup.document(None).to_string()) };
        Ok(())
    })
}

/// Restores the cluster into `target_dir`, which must be absent or empty. `target` is where recovery ends, as `walarchive restore
/// --to` takes it, or null for the newest state; the restored server fetches its WAL with `restore_command`.
///
/// # Safety
///
/// `cluster` came from walarchive_open; strings end in NUL; `callbacks` is null or fulfils its contract; `json` and `error`
/// are null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_restore(
    cluster: *const walarchive_cluster,
    target_dir: *const c_char,
    target: *const c_char,
    restore_command: *const c_char,
    callbacks: *const walarchive_progress,
    json: *mut *mut c_char,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let (this, dir, target, command, progress) = unsafe {
            (
                opened(cluster)?,
                path(target_dir, "the target directory")?,
                text(target, "the recovery target")?,
                needed(restore_command, "the restore_command")?,
                progress(callbacks),
            )
        };
        if command.trim().is_empty() {
            return Err(Error::usage("the restore_command is empty: the restored server could fetch no WAL"));
        }
        let target: Target = target.map_or(Ok(Target::default()), str::parse)?;
        let cluster = this.cluster(progress)?;
        let done =
            this.blocking.wait(async { cluster.restore(dir, command).await?.to(target).run().await })?;
        let document = json!({
            "backup": done.plan.backup, "to": done.plan.to, "timeline": done.plan.timeline,
            "bytes_written": done.bytes_written, "notes": done.notes,
        });
        // SAFETY: as the caller promises.
        unsafe { give_text(json, document.to_string()) };
        Ok(())
    })
}

/// Proves what is stored, as `walarchive verify` does; with `deep` every byte of it. `json` tells of problems, too: then the
/// status is that of the gravest.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `callbacks` is null or fulfils its contract; `json` and `error` are null or may be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_verify(
    cluster: *const walarchive_cluster,
    deep: bool,
    callbacks: *const walarchive_progress,
    json: *mut *mut c_char,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let (this, progress) = unsafe { (opened(cluster)?, progress(callbacks)) };
        let request = this.cluster(progress)?.verify();
        let request = if deep { request.deep() } else { request };
        let found = this.blocking.wait(request.run())?;
        // SAFETY: as the caller promises.
        unsafe { give_text(json, found.document(deep).to_string()) };
        match found.kind() {
            None => Ok(()),
            Some(kind) => Err(Error::new(
                kind,
                format!("{} found; the result tells of each", many(found.problems.len() as u64, "problem")),
            )),
        }
    })
}
