//! Callbacks of C as the library's progress.

use std::ffi::{c_char, c_void};

use walarchive_core::progress::{Progress, Silent};
use walarchive_core::{Error, Kind, Result};

use crate::guard::c_string;

/// Hears of the progress of one call. Any of the functions may be null. They may be called from several threads at
/// once, and none is called when the call has returned.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct walarchive_progress {
    /// Given to each function.
    pub context: *mut c_void,
    /// Work of `total` bytes begins.
    pub begin: Option<unsafe extern "C" fn(context: *mut c_void, what: *const c_char, total: u64)>,
    /// That many bytes more are done; 0 where it is only asked whether to go on. False ends the call with the kind "cancelled".
    pub advance: Option<unsafe extern "C" fn(context: *mut c_void, bytes: u64) -> bool>,
    /// Something that people should know meanwhile.
    pub note: Option<unsafe extern "C" fn(context: *mut c_void, message: *const c_char)>,
    /// The work that began last is over.
    pub end: Option<unsafe extern "C" fn(context: *mut c_void)>,
}

/// The callbacks of one call.
struct Callbacks(walarchive_progress);

// SAFETY: by the contract of walarchive_progress its functions and their context may be used from several threads.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Progress for Callbacks {
    fn begin(&self, what: &str, total: u64) {
        if let Some(begin) = self.0.begin {
            // SAFETY: the caller's function, with the caller's context; the string lives during the call.
            unsafe { begin(self.0.context, c_string(what).as_ptr(), total) }
        }
    }

    fn advance(&self, bytes: u64) -> Result<()> {
        // SAFETY: the caller's function, with the caller's context.
        match self.0.advance.is_none_or(|advance| unsafe { advance(self.0.context, bytes) }) {
            true => Ok(()),
            false => Err(Error::new(Kind::Cancelled, "cancelled by the caller")),
        }
    }

    fn note(&self, message: &str) {
        if let Some(note) = self.0.note {
            // SAFETY: the caller's function, with the caller's context; the string lives during the call.
            unsafe { note(self.0.context, c_string(message).as_ptr()) }
        }
    }

    fn end(&self) {
        if let Some(end) = self.0.end {
            // SAFETY: the caller's function, with the caller's context.
            unsafe { end(self.0.context) }
        }
    }
}

/// The callbacks behind a pointer; silence where it is null.
///
/// # Safety
///
/// `progress` is null or points to callbacks that fulfil their contract.
pub(crate) unsafe fn progress(progress: *const walarchive_progress) -> std::sync::Arc<dyn Progress> {
    // SAFETY: null, or the caller's callbacks.
    match unsafe { progress.as_ref() } {
        Some(callbacks) => std::sync::Arc::new(Callbacks(*callbacks)),
        None => std::sync::Arc::new(Silent),
    }
}
