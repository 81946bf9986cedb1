//! A store written in C as the library's storage.

use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use walarchive_core::crossing::blocking;
use walarchive_core::storage::{Created, Entry, Gathered, Part, Storage, Upload};
use walarchive_core::{Error, Kind, Result};

use crate::guard::c_string;

/// What a callback of a store gives back besides its status; filled through the calls walarchive_answer_...
#[allow(non_camel_case_types)]
#[derive(Default)]
pub struct walarchive_answer {
    exists: bool,
    size: Option<u64>,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    message: Option<String>,
}

/// A store of the caller's: a flat map of keys to objects that never change. The callbacks give status numbers: 0 for done, 1 for
/// an object that is proven absent, 5 for a store that cannot be reached (which is tried again), 6 for any other failure.
/// They may be called from several threads at once, must not throw or jump out of themselves, and must not call
/// the cluster that they belong to. Keys are relative paths of the characters A-Z a-z 0-9 . _ - and /.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct walarchive_storage {
    /// Given to each callback.
    pub context: *mut c_void,
    /// Stores an object, whole and durably (it survives the loss of power), if there is none of that key. If there is one it
    /// stays as it is, and the callback tells so by walarchive_answer_exists. Of several writers of one key exactly one succeeds.
    pub create: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            key: *const c_char,
            payload: *const u8,
            length: usize,
            answer: *mut walarchive_answer,
        ) -> u32,
    >,
    /// Reads `length` bytes of an object from `offset` on; fewer, or none, where it ends before. The callback gives them by
    /// walarchive_answer_bytes, and the size of the whole object by walarchive_answer_size.
    pub get: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            key: *const c_char,
            offset: u64,
            length: u64,
            answer: *mut walarchive_answer,
        ) -> u32,
    >,
    /// Tells all objects whose keys begin with `prefix` (all, where it is empty), in any order, each by walarchive_answer_entry.
    pub list: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            prefix: *const c_char,
            answer: *mut walarchive_answer,
        ) -> u32,
    >,
    /// Removes an object; that there is none is success, too.
    pub remove: Option<
        unsafe extern "C" fn(context: *mut c_void, key: *const c_char, answer: *mut walarchive_answer) -> u32,
    >,
    /// Called once, when no callback will be called any more. May be null.
    pub release: Option<unsafe extern "C" fn(context: *mut c_void)>,
}

/// The caller's functions; released with the last that uses them.
struct Functions(walarchive_storage);

// SAFETY: by the contract of walarchive_storage its functions and their context may be used from several threads.
unsafe impl Send for Functions {}
// SAFETY: as above.
unsafe impl Sync for Functions {}

impl Drop for Functions {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the caller's function, with the caller's context, called once.
            unsafe { release(self.0.context) }
        }
    }
}

/// A store of functions in C.
#[derive(Clone)]
pub(crate) struct Callbacks(Arc<Functions>);

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callbacks")
    }
}

/// The store behind a pointer; nothing where it is null.
///
/// # Safety
///
/// `storage` is null or points to callbacks that fulfil their contract.
pub(crate) unsafe fn callbacks(storage: *const walarchive_storage) -> Result<Option<Callbacks>> {
    // SAFETY: null, or the caller's callbacks.
    let Some(storage) = (unsafe { storage.as_ref() }) else { return Ok(None) };
    // From here on they are released, also when one is missing.
    let functions = Functions(*storage);
    let whole = storage.create.is_some()
        && storage.get.is_some()
        && storage.list.is_some()
        && storage.remove.is_some();
    if !whole {
        return Err(Error::usage("the store lacks one of create, get, list and remove"));
    }
    Ok(Some(Callbacks(Arc::new(functions))))
}

/// What a status means.
fn kind(status: u32) -> Kind {
    let known = [Kind::Absent, Kind::Usage, Kind::Conflict, Kind::Damaged, Kind::Unreachable];
    known.into_iter().find(|kind| u32::from(kind.exit_code()) == status).unwrap_or(Kind::Local)
}

impl Callbacks {
    /// Calls one function on a thread that may block, and looks at what came of it.
    async fn ask(
        &self,
        what: &'static str,
        key: &str,
        call: impl FnOnce(&walarchive_storage, &CStr, *mut walarchive_answer) -> u32 + Send + 'static,
    ) -> Result<walarchive_answer> {
        let (this, key) = (self.clone(), key.to_owned());
        blocking(move || {
            let (mut answer, c_key) = (walarchive_answer::default(), c_string(key.as_str()));
            match call(&this.0.0, &c_key, &raw mut answer) {
                0 => Ok(answer),
                status => {
                    let said = answer.message.unwrap_or_else(|| format!("it said {status}"));
                    Err(Error::new(kind(status), format!("{what} in the caller's store: {said}")).on(key))
                }
            }
        })
        .await
    }
}

fn missing() -> u32 {
    Kind::Bug.exit_code().into()
}

#[async_trait]
impl Storage for Callbacks {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        let payload = payload.concat();
        let answer = self.ask("creating an object", key, move |store, key, answer| {
            // SAFETY: the caller's function; key and payload live during the call.
            store.create.map_or_else(missing, |create| unsafe {
                create(store.context, key.as_ptr(), payload.as_ptr(), payload.len(), answer)
            })
        });
        Ok(if answer.await?.exists { Created::Exists } else { Created::New })
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Gathered::new(Arc::new(self.clone()), key)))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        let range = range.unwrap_or(0..u64::MAX);
        let (offset, length) = (range.start, range.end.saturating_sub(range.start));
        let answer = self.ask("reading an object", key, move |store, key, answer| {
            // SAFETY: the caller's function; the key lives during the call.
            store.get.map_or_else(missing, |get| unsafe {
                get(store.context, key.as_ptr(), offset, length, answer)
            })
        });
        let answer = answer.await?;
        let wrong = |what: &str| {
            Error::new(Kind::Local, format!("reading an object: the caller's store {what}")).on(key)
        };
        let object_size = answer.size.ok_or_else(|| wrong("did not tell its size"))?;
        let expected = object_size.min(range.end).saturating_sub(offset);
        if answer.bytes.len() as u64 != expected {
            let found = answer.bytes.len();
            return Err(wrong(&format!("gave {found} bytes where {expected} were asked for")));
        }
        Ok(Part { bytes: answer.bytes.into(), object_size })
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let this = self.clone();
        let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let entries = async move {
            let answer = this.ask("listing", &below, |store, prefix, answer| {
                // SAFETY: the caller's function; the prefix lives during the call.
                store
                    .list
                    .map_or_else(missing, |list| unsafe { list(store.context, prefix.as_ptr(), answer) })
            });
            let entries: Vec<Result<Entry>> = match answer.await {
                Ok(answer) => {
                    answer.entries.into_iter().filter(|entry| entry.key.starts_with(&below)).map(Ok).collect()
                }
                Err(error) => vec![Err(error)],
            };
            stream::iter(entries)
        };
        stream::once(entries).flatten().boxed()
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let answer = self.ask("removing an object", key, |store, key, answer| {
            // SAFETY: the caller's function; the key lives during the call.
            store.remove.map_or_else(missing, |remove| unsafe { remove(store.context, key.as_ptr(), answer) })
        });
        answer.await.map(drop)
    }
}

/// Says, in `create`, that there is an object of that key already.
///
/// # Safety
///
/// `answer` is the one that the callback was given, and the callback has not returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_answer_exists(answer: *mut walarchive_answer) {
    // SAFETY: by contract an answer that is alive and used by nobody else.
    if let Some(answer) = unsafe { answer.as_mut() } {
        answer.exists = true;
    }
}

/// Gives, in `get`, the next bytes; it may be called again for more.
///
/// # Safety
///
/// As walarchive_answer_exists; `data` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_answer_bytes(
    answer: *mut walarchive_answer,
    data: *const u8,
    length: usize,
) {
    // SAFETY: by contract an answer that is alive and used by nobody else.
    if let (Some(answer), false) = (unsafe { answer.as_mut() }, data.is_null()) {
        // SAFETY: not null, and by contract that many bytes.
        answer.bytes.extend_from_slice(unsafe { slice::from_raw_parts(data, length) });
    }
}

/// Tells, in `get`, the size of the whole object.
///
/// # Safety
///
/// As walarchive_answer_exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_answer_size(answer: *mut walarchive_answer, size: u64) {
    // SAFETY: by contract an answer that is alive and used by nobody else.
    if let Some(answer) = unsafe { answer.as_mut() } {
        answer.size = Some(size);
    }
}

/// Tells, in `list`, one object and its size.
///
/// # Safety
///
/// As walarchive_answer_exists; `key` ends in NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_answer_entry(
    answer: *mut walarchive_answer,
    key: *const c_char,
    size: u64,
) {
    // SAFETY: by contract an answer that is alive and used by nobody else, and a string.
    if let (Some(answer), Some(key)) = unsafe { (answer.as_mut(), text(key)) } {
        answer.entries.push(Entry { key, size });
    }
}

/// Tells, in any callback that fails, why: it becomes part of the error's message.
///
/// # Safety
///
/// As walarchive_answer_exists; `message` ends in NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_answer_message(answer: *mut walarchive_answer, message: *const c_char) {
    // SAFETY: by contract an answer that is alive and used by nobody else, and a string.
    if let (Some(answer), message @ Some(_)) = unsafe { (answer.as_mut(), text(message)) } {
        answer.message = message;
    }
}

/// A string of the caller's; what is not UTF-8 is replaced.
///
/// # Safety
///
/// `string` is null or ends in NUL.
unsafe fn text(string: *const c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: not null, and by contract a string that ends in NUL.
    let bytes = unsafe { CStr::from_ptr(string) };
    Some(CString::from(bytes).to_string_lossy().into_owned())
}
