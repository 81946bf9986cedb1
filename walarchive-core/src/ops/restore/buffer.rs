//! Memory that the system can write from without copying it.

/// What unbuffered writes are aligned to, in memory and in the file.
pub(super) const ALIGN: usize = 4096;

/// Zeros at first, at an address that is a multiple of [`ALIGN`].
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn new(len: usize) -> Buffer {
        let bytes = vec![0u8; len + ALIGN];
        // Never beyond ALIGN: an address that cannot be aligned costs unbuffered writes, nothing else.
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Buffer { bytes, start, len }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
