//! The C interface: opaque clusters and errors, calls that return status numbers.
//!
//! No panic crosses into C: every function that does work runs inside one guard. `include/walarchive.h` is made of this by
//! cbindgen; a test holds it against the code.
#![allow(unsafe_code)] // What C gives are pointers. Each block says why they may be followed.

mod buffer;
mod cluster;
mod flows;
mod guard;
mod progress;
mod storage;

use std::ffi::{CStr, c_char};

pub use buffer::*;
pub use cluster::*;
pub use flows::*;
pub use guard::*;
pub use progress::*;
pub use storage::*;
use walarchive_core::Kind;

#[cfg(not(panic = "unwind"))]
compile_error!("panics must unwind, so that they can be kept from crossing into C");

const ABI: u32 = 1;
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The version of this interface. It changes when a caller has to be compiled anew.
// SAFETY: no other item of this name is linked; it takes and keeps nothing.
#[unsafe(no_mangle)]
pub extern "C" fn walarchive_abi_version() -> u32 {
    ABI
}

/// The version of the library, as a string that lives as long as the library is loaded.
// SAFETY: no other item of this name is linked; the pointer is to static memory that ends in NUL.
#[unsafe(no_mangle)]
pub extern "C" fn walarchive_version() -> *const c_char {
    VERSION.as_ptr()
}

/// What a status number means, as a string that lives as long as the library is loaded. The numbers are the exit codes of
/// the programs.
// SAFETY: no other item of this name is linked; the pointer is to static memory that ends in NUL.
#[unsafe(no_mangle)]
pub extern "C" fn walarchive_status_text(status: u32) -> *const c_char {
    let is = |kind: Kind| status == u32::from(kind.exit_code());
    let text = match () {
        () if status == 0 => c"done, and durable",
        () if is(Kind::Absent) => c"proven absent",
        () if is(Kind::Usage) => c"usage or configuration",
        () if is(Kind::Conflict) => c"refused",
        () if is(Kind::Damaged) => c"damaged or not authentic",
        () if is(Kind::Unreachable) => c"unreachable",
        () if is(Kind::Local) => c"this machine's input or output, or an end that was asked for",
        () if is(Kind::Bug) => c"a bug in walarchive",
        () => c"unknown status",
    };
    text.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_leave_the_guard() {
        let mut error = std::ptr::null_mut();
        assert_eq!(guard(&raw mut error, || panic!("inside")), 70);
        // SAFETY: the guard has just made it.
        unsafe {
            assert_eq!(walarchive_error_status(error), 70);
            walarchive_error_free(error);
        }
    }

    #[test]
    fn statuses_are_the_exit_codes() {
        // SAFETY: the function returns static strings.
        let text = |status| unsafe { CStr::from_ptr(walarchive_status_text(status)) }.to_str().unwrap();
        assert_eq!(text(0), "done, and durable");
        assert_eq!(text(4), "damaged or not authentic");
        assert_eq!(text(99), "unknown status");
    }
}
