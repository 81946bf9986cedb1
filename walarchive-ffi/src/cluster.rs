//! One cluster in an archive: opened, made, closed.

use std::ffi::c_char;
use std::sync::{Arc, OnceLock};
use std::{mem, process, ptr};

use walarchive_core::config::{Flags, Settings};
use walarchive_core::patience::Patience;
use walarchive_core::progress::{Progress, while_wanted};
use walarchive_core::{Archive, Blocking, Cluster, Error, Result};

use crate::guard::{give, guard, text, walarchive_error};
use crate::storage::{Callbacks, callbacks, walarchive_storage};

/// One cluster of an archive, as settings name them. Any number of threads may use one at once; a process that was forked opens
/// another one.
#[allow(non_camel_case_types)]
pub struct walarchive_cluster {
    pub(crate) settings: Settings,
    pub(crate) blocking: Blocking,
    /// A store of the caller's, instead of those of the settings.
    storage: Option<Callbacks>,
    /// Reached with the first call that needs it.
    opened: OnceLock<Cluster>,
    /// The process whose threads it has.
    process: u32,
}

impl walarchive_cluster {
    /// The cluster, for one call.
    pub(crate) fn cluster(&self, progress: Arc<dyn Progress>) -> Result<Cluster> {
        if let Some(cluster) = self.opened.get() {
            return Ok(cluster.clone().progress(progress));
        }
        let opening = while_wanted(&*progress, self.open());
        let cluster = self.blocking.wait(opening)?;
        Ok(self.opened.get_or_init(|| cluster).clone().progress(progress))
    }

    async fn open(&self) -> Result<Cluster> {
        match &self.storage {
            Some(storage) => {
                let archive = Archive::open(Arc::new(storage.clone()), self.settings.keys()?).await?;
                Cluster::of(&archive, &self.settings).await
            }
            None => Cluster::open(&self.settings).await,
        }
    }

    fn init(&self, encrypted: bool) -> Result<bool> {
        if encrypted && self.settings.keys()?.recipients.is_empty() {
            return Err(Error::usage("nobody could read this archive: the settings name no recipient")
                .hint("WALARCHIVE_RECIPIENTS or WALARCHIVE_IDENTITY_FILE names one"));
        }
        if let Some(storage) = &self.storage {
            return self.blocking.wait(Archive::init(storage, encrypted)).map(|(_, is_new)| is_new);
        }
        let patience = Patience::each(self.settings.store_retry_budget()?);
        self.blocking.wait(async {
            let storage = self.settings.new_storage(&patience).await?;
            Archive::init(&*storage, encrypted).await.map(|(_, is_new)| is_new)
        })
    }
}

/// The cluster behind a pointer.
///
/// # Safety
///
/// `cluster` is null or came from walarchive_open and was not closed; it lives as long as `'a`.
pub(crate) unsafe fn opened<'a>(cluster: *const walarchive_cluster) -> Result<&'a walarchive_cluster> {
    // SAFETY: null, or by contract a cluster that is alive.
    let cluster = unsafe { cluster.as_ref() }.ok_or_else(|| Error::usage("the cluster's pointer is null"))?;
    match cluster.process == process::id() {
        true => Ok(cluster),
        false => Err(Error::usage("the cluster was opened by another process, before this one was forked")
            .hint("open another one here")),
    }
}

/// Settings as `NAME=value`.
///
/// # Safety
///
/// `list` is null or an array of strings that ends in a null pointer.
unsafe fn variables(list: *const *const c_char) -> Result<Vec<(String, String)>> {
    if list.is_null() {
        return Ok(std::env::vars_os()
            .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)))
            .collect());
    }
    let mut found = Vec::new();
    for number in 0.. {
        // SAFETY: by contract the array goes on up to its null pointer, and holds strings.
        let Some(line) = (unsafe { text(*list.add(number), "a setting") })? else { break };
        let (name, value) =
            line.split_once('=').ok_or_else(|| Error::usage("a setting is not written as NAME=value"))?;
        found.push((name.to_owned(), value.to_owned()));
    }
    Ok(found)
}

/// Takes settings and makes a cluster of them, which belongs to the caller. Nothing is asked of the archive yet.
///
/// `config_file` is the path of a settings file, or null for the usual one if it is there. `settings` are the environment
/// variables of the programs as an array of "NAME=value" that ends in a null pointer (WALARCHIVE_ARCHIVE, WALARCHIVE_CLUSTER,
/// WALARCHIVE_RECIPIENTS and so on); null for the environment of this process.
///
/// # Safety
///
/// Strings end in NUL; `cluster` may be written to; `error` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_open(
    config_file: *const c_char,
    settings: *const *const c_char,
    cluster: *mut *mut walarchive_cluster,
    error: *mut *mut walarchive_error,
) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { walarchive_open_in(config_file, settings, ptr::null(), cluster, error) }
}

/// As walarchive_open, with an archive in a store of the caller's: the settings need not name any. `storage` is copied; null for
/// the stores that the settings name. Its `release` is called when the cluster is closed, or this call fails.
///
/// # Safety
///
/// As walarchive_open; `storage` is null or fulfils its contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_open_in(
    config_file: *const c_char,
    settings: *const *const c_char,
    storage: *const walarchive_storage,
    cluster: *mut *mut walarchive_cluster,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let storage = unsafe { callbacks(storage) }?;
        // SAFETY: as the caller promises.
        let (config, variables) =
            unsafe { (text(config_file, "the settings file's path")?, variables(settings)?) };
        let flags = Flags { config: config.map(Into::into), ..Flags::default() };
        let settings = Settings::load(&flags, variables.into_iter())?;
        let made = walarchive_cluster {
            settings,
            blocking: Blocking::new()?,
            storage,
            opened: OnceLock::new(),
            process: process::id(),
        };
        // SAFETY: as the caller promises.
        unsafe { give(cluster, made) }
    })
}

/// Gives a cluster back; null is nothing to close.
///
/// # Safety
///
/// `cluster` came from walarchive_open, was not closed before, and no call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_close(cluster: *mut walarchive_cluster) {
    guard(ptr::null_mut(), || {
        if !cluster.is_null() {
            // SAFETY: made by Box::into_raw in `give`, and given back once.
            let cluster = unsafe { Box::from_raw(cluster) };
            // Where it was forked, it would wait for threads that are not here.
            if cluster.process != process::id() {
                mem::forget(cluster);
            }
        }
        Ok(())
    });
}

/// Makes the archive, or finds the one that is there: then nothing is changed. One that is `encrypted` needs somebody who can read
/// it: a recipient, or an identity, in the settings.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `error` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_init(
    cluster: *const walarchive_cluster,
    encrypted: bool,
    error: *mut *mut walarchive_error,
) -> u32 {
    // SAFETY: as the caller promises.
    guard(error, || unsafe { opened(cluster) }?.init(encrypted).map(drop))
}
