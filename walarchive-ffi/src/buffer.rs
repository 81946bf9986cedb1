//! Buffers, sealed and opened with the keys of the settings.

use std::{ptr, slice};

use walarchive_core::cipher::age::AgeCipher;
use walarchive_core::pipeline::{open_buffer, seal_buffer};
use walarchive_core::{Error, Result};

use crate::cluster::{opened, walarchive_cluster};
use crate::guard::{guard, walarchive_error};

/// The caller's bytes.
///
/// # Safety
///
/// `data` points to `length` bytes that live as long as `'a`, or `length` is 0.
unsafe fn bytes<'a>(data: *const u8, length: usize) -> Result<&'a [u8]> {
    match (length, data.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Error::usage("the buffer is missing: its pointer is null")),
        // SAFETY: not null, and by contract that many bytes.
        (_, false) => Ok(unsafe { slice::from_raw_parts(data, length) }),
    }
}

/// Gives bytes to the caller, who gives them back with walarchive_buffer_free.
///
/// # Safety
///
/// `to` and `length` may be written to, or are null.
unsafe fn give_bytes(to: *mut *mut u8, length: *mut usize, bytes: Vec<u8>) -> Result<()> {
    if to.is_null() || length.is_null() {
        return Err(Error::usage("there is no place for the result: its pointer is null"));
    }
    let boxed = bytes.into_boxed_slice();
    // SAFETY: not null, and the caller's to be written to.
    unsafe {
        length.write(boxed.len());
        to.write(Box::into_raw(boxed).cast());
    }
    Ok(())
}

impl walarchive_cluster {
    fn cipher(&self) -> Result<AgeCipher> {
        let keys = self.settings.keys()?;
        match (keys.recipients.is_empty(), keys.identities.is_empty()) {
            (true, true) => Err(Error::usage("sealing and opening a buffer: the settings name no keys")
                .hint("WALARCHIVE_RECIPIENTS seals, WALARCHIVE_IDENTITY_FILE opens")),
            _ => Ok(AgeCipher::new(keys.recipients, keys.identities)),
        }
    }
}

/// Compresses and seals `length` bytes at `data` for the recipients that the settings name, as one age file that needs no archive:
/// `age -d -i KEY | zstd -d` opens it, too. Nothing is asked of the archive.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `data` points to `length` bytes; `sealed` and `sealed_length` may be written to; `error`
/// is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_seal(
    cluster: *const walarchive_cluster,
    data: *const u8,
    length: usize,
    sealed: *mut *mut u8,
    sealed_length: *mut usize,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let (this, content) = unsafe { (opened(cluster)?, bytes(data, length)?) };
        let made = seal_buffer(content, &*this.settings.wal_codec()?, &this.cipher()?)?;
        // SAFETY: as the caller promises.
        unsafe { give_bytes(sealed, sealed_length, made) }
    })
}

/// Opens what walarchive_seal made, with an identity that the settings name: nothing is given that was not proven. More than
/// `limit` bytes are refused as damaged.
///
/// # Safety
///
/// `cluster` came from walarchive_open; `sealed` points to `sealed_length` bytes; `data` and `length` may be written to; `error`
/// is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_unseal(
    cluster: *const walarchive_cluster,
    sealed: *const u8,
    sealed_length: usize,
    limit: u64,
    data: *mut *mut u8,
    length: *mut usize,
    error: *mut *mut walarchive_error,
) -> u32 {
    guard(error, || {
        // SAFETY: as the caller promises.
        let (this, sealed) = unsafe { (opened(cluster)?, bytes(sealed, sealed_length)?) };
        let content = open_buffer(sealed, &this.cipher()?, limit)?;
        // SAFETY: as the caller promises.
        unsafe { give_bytes(data, length, content) }
    })
}

/// Frees the bytes that walarchive_seal or walarchive_unseal has given; null is nothing to free.
///
/// # Safety
///
/// Pointer and length came from one call of this library, and were not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walarchive_buffer_free(buffer: *mut u8, length: usize) {
    if !buffer.is_null() {
        // SAFETY: made by Box::into_raw in `give_bytes` with that length, and given back once.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(buffer, length)) });
    }
}
