//! The one way in: no panic crosses, and every failure becomes a status and an error that tells its story.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::ptr;

use walarchive_core::{Error, Result};

/// What went wrong. It belongs to the caller, who gives it back with walarchive_error_free.
#[allow(non_camel_case_types)]
pub struct walarchive_error {
    status: u32,
    kind: CString,
    message: CString,
    object: Option<CString>,
}

/// A text without its NULs, of which C would see the first as its end.
pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes: Vec<u8> = text.into();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

impl From<&Error> for walarchive_error {
    fn from(error: &Error) -> walarchive_error {
        walarchive_error {
            status: error.kind().exit_code().into(),
            kind: c_string(error.kind().name()),
            message: c_string(error.story()),
            object: error.object().map(c_string),
        }
    }
}

/// Runs `work` behind the guard. Where `error` is not null, it is set: to null, or to what went wrong.
pub(crate) fn guard(error: *mut *mut walarchive_error, work: impl FnOnce() -> Result<()>) -> u32 {
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::bug("a call failed in a way that it should not; please report it")));
    let (status, story) = match &result {
        Ok(()) => (0, ptr::null_mut()),
        Err(failure) => {
            let story = walarchive_error::from(failure);
            (story.status, if error.is_null() { ptr::null_mut() } else { Box::into_raw(Box::new(story)) })
        }
    };
    if !error.is_null() {
        // SAFETY: not null, and by the contract of every call a place that may be written to.
        unsafe { error.write(story) };
    }
    status
}

/// Gives `value` to the caller.
///
/// # Safety
///
/// `to` is null or may be written to.
pub(crate) unsafe fn give<T>(to: *mut *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Err(Error::usage("there is no place for the result: its pointer is null"));
    }
    // SAFETY: not null, and the caller's to be written to.
    unsafe { to.write(Box::into_raw(Box::new(value))) };
    Ok(())
}

/// Gives a text to the caller, who gives it back with walarchive_string_free; to nobody where `to` is null.
///
/// # Safety
///
/// `to` is null or may be written to.
pub(crate) unsafe fn give_text(to: *mut *mut c_char, text: String) {
    if !to.is_null() {
        // SAFETY: not null, and the caller's to be written to.
        unsafe { to.write(c_string(text).into_raw()) };
    }
}

/// The text behind a pointer; `None` where it is null.
///
/// # Safety
///
/// `text` is null or points to a string that ends in NUL and lives as long as `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and by contract a string that ends in NUL.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map(Some).map_err(|_| Error::usage(format!("{what} is not UTF-8")))
}

/// The same, of what must be there.
///
/// # Safety
///
/// As [`text`].
pub(crate) unsafe fn needed<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    let found = unsafe { text(pointer, what) }?;
    found.ok_or_else(|| Error::usage(format!("{what} is missing: its pointer is null")))
}

/// The same, as a path.
///
/// # Safety
///
/// As [`text`].
pub(crate) unsafe fn path(pointer: *const c_char, what: &str) -> Result<PathBuf> {
    // SAFETY: as the caller promises.
    unsafe { needed(pointer, what) }.map(PathBuf::from)
}

/// The status of an error: an exit code of the programs, as walarchive_status_text tells it.
///
/// # Safety
///
/// `error` came from a call of this library and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_error_status(error: *const walarchive_error) -> u32 {
    // SAFETY: null, or by contract an error that is alive.
    unsafe { error.as_ref() }.map_or(0, |error| error.status)
}

/// The kind of an error, finer than its status: "absent", "usage", "conflict", "damaged", "unreachable" and so on. Null for null.
///
/// # Safety
///
/// `error` came from a call of this library; the string lives as long as it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_error_kind(error: *const walarchive_error) -> *const c_char {
    // SAFETY: null, or by contract an error that is alive.
    unsafe { error.as_ref() }.map_or(ptr::null(), |error| error.kind.as_ptr())
}

/// What was attempted, on what, what came of it and what to do, in one line. Null for null.
///
/// # Safety
///
/// `error` came from a call of this library; the string lives as long as it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_error_message(error: *const walarchive_error) -> *const c_char {
    // SAFETY: null, or by contract an error that is alive.
    unsafe { error.as_ref() }.map_or(ptr::null(), |error| error.message.as_ptr())
}

/// The object that an error is about: an archive's key, a file, a server. Null when there is none.
///
/// # Safety
///
/// `error` came from a call of this library; the string lives as long as it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_error_object(error: *const walarchive_error) -> *const c_char {
    // SAFETY: null, or by contract an error that is alive.
    let object = unsafe { error.as_ref() }.and_then(|error| error.object.as_ref());
    object.map_or(ptr::null(), |object| object.as_ptr())
}

/// Frees an error; null is nothing to free.
///
/// # Safety
///
/// `error` came from a call of this library and was not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_error_free(error: *mut walarchive_error) {
    if !error.is_null() {
        // SAFETY: made by Box::into_raw in `guard`, and given back once.
        drop(unsafe { Box::from_raw(error) });
    }
}

/// Frees a string that a call has given; null is nothing to free.
///
/// # Safety
///
/// `string` came from a call of this library and was not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: made by CString::into_raw in `give_text`, and given back once.
        drop(unsafe { CString::from_raw(string) });
    }
}
