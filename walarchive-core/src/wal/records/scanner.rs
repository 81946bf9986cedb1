//! Walking the records of consecutive segments.

use super::super::page::{
    FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD, LONG, LONG_HEADER, LongHeader, SHORT_HEADER,
    parse_long_header, u16_at, u32_at, u64_at,
};
use super::decode::{self, HEADER, HEADER_SUMMED, Header};
use super::{Ending, Fact, ScanEnd};
use crate::error::{Error, Result};
use crate::wal::{Lsn, SegmentSize};

/// A longer record does not exist; PostgreSQL refuses to write one.
const LONGEST: u32 = 1 << 30;
/// This much of a record's start is kept to be understood. All before the main data of a commit fits.
const KEPT: usize = 64 << 10;

/// Reads facts from consecutive segments; carries a record that continues from one to the next.
///
/// Memory is bounded: of a record at most its first 64 KiB are kept, whatever length it claims.
#[derive(Debug)]
pub struct Scanner {
    size: SegmentSize,
    /// Where the next segment must start for the log to be consecutive.
    next: Option<Lsn>,
    state: State,
    /// Where the last valid record starts.
    prev: Option<Lsn>,
    /// Where valid log ends so far.
    valid: Lsn,
    /// Where the last valid record of all that was scanned starts.
    last: Option<Lsn>,
}

#[derive(Debug)]
enum State {
    /// A record header comes next.
    Between,
    /// The rest of a record whose start was not seen.
    Skipping { left: u32 },
    /// A record that began and is not complete.
    Inside(Partial),
}

#[derive(Debug)]
struct Partial {
    start: Lsn,
    total: u32,
    have: u32,
    kept: Vec<u8>,
    /// CRC-32C of what came after the header.
    crc: u32,
}

impl Partial {
    fn new(start: Lsn, total: u32) -> Partial {
        Partial { start, total, have: 0, kept: Vec::new(), crc: 0 }
    }

    fn left(&self) -> u32 {
        self.total - self.have
    }

    /// Takes bytes of the record; the caller passes no more than are left.
    fn take(&mut self, bytes: &[u8]) {
        let header = HEADER.saturating_sub(self.have as usize).min(bytes.len());
        self.crc = crc32c::crc32c_append(self.crc, &bytes[header..]);
        let keep = bytes.len().min(KEPT - self.kept.len());
        self.kept.extend_from_slice(&bytes[..keep]);
        self.have += bytes.len() as u32;
    }

    fn checked_header(&self) -> Option<Header> {
        let header = Header::parse(&self.kept)?;
        let crc = crc32c::crc32c_append(self.crc, self.kept.get(..HEADER_SUMMED)?);
        (crc == header.crc).then_some(header)
    }
}

/// The segment that is being scanned.
struct Segment<'a> {
    start: Lsn,
    bytes: &'a [u8],
    header: LongHeader,
}

/// What a page or a record says about going on.
enum Step {
    Continue,
    /// The rest of the segment is unused.
    SegmentDone,
}

type Stop = (Lsn, Ending);

impl Scanner {
    /// A scanner for the segments of one cluster.
    #[must_use]
    pub fn new(segment_size: SegmentSize) -> Scanner {
        Scanner {
            size: segment_size,
            next: None,
            state: State::Between,
            prev: None,
            valid: Lsn(0),
            last: None,
        }
    }

    /// Where the last complete and valid record starts, of all that was scanned.
    #[must_use]
    pub fn last_record(&self) -> Option<Lsn> {
        self.last
    }

    /// Scans the segment that starts at `name_start`, reporting each fact in it to `on`, in order.
    ///
    /// When the segment does not follow the one before it, or valid log ended in that one, the scan starts
    /// afresh: the rest of a record that began earlier is passed over. `bytes` may be fewer than a segment
    /// has. A record that spans segments is reported with the segment in which it ends.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when no segment starts at `name_start` or `bytes` are more than a segment holds.
    /// Content never is an error: what does not hold is the end of the log.
    pub fn segment(&mut self, name_start: Lsn, bytes: &[u8], on: &mut dyn FnMut(Fact)) -> Result<ScanEnd> {
        if name_start.offset(self.size) != 0 || bytes.len() as u64 > self.size.bytes() {
            return Err(Error::usage(format!(
                "cannot scan {} bytes at {name_start} as a segment of {} bytes",
                bytes.len(),
                self.size.bytes()
            )));
        }
        let follows = self.next == Some(name_start);
        if !follows {
            self.restart(name_start);
        }
        match self.scan(name_start, bytes, follows, on) {
            Ok(()) => {
                self.next = name_start.checked_add(self.size.bytes());
                Ok(ScanEnd::Whole)
            }
            Err((at, why)) => {
                self.restart(at);
                Ok(ScanEnd::Ended { at, why })
            }
        }
    }

    fn restart(&mut self, at: Lsn) {
        (self.next, self.prev, self.valid, self.state) = (None, None, at, State::Between);
    }

    fn scan(
        &mut self,
        start: Lsn,
        bytes: &[u8],
        follows: bool,
        on: &mut dyn FnMut(Fact),
    ) -> Result<(), Stop> {
        let valid = self.valid;
        let stop = move |why| (valid, why);
        let header = parse_long_header(bytes).map_err(|_| {
            let zeros = bytes.iter().take(LONG_HEADER).all(|b| *b == 0);
            stop(if bytes.len() < LONG_HEADER {
                Ending::Short
            } else if zeros {
                Ending::Zeros
            } else {
                Ending::Page
            })
        })?;
        if header.address != start || header.segment_size != self.size {
            return Err(stop(Ending::Page));
        }
        if !follows && header.info & FIRST_IS_CONTRECORD != 0 {
            self.state = State::Skipping { left: header.rem_len };
        }
        let block = header.block_size as usize;
        let segment = Segment { start, bytes, header };
        let mut at = 0;
        while (at as u64) < self.size.bytes() {
            if let Step::SegmentDone = self.page(&segment, at, on)? {
                return Ok(());
            }
            at += block;
        }
        Ok(())
    }

    /// Scans the page at offset `at` of the segment.
    fn page(&mut self, segment: &Segment<'_>, at: usize, on: &mut dyn FnMut(Fact)) -> Result<Step, Stop> {
        let valid = self.valid;
        let stop = move |why| Err((valid, why));
        let block = segment.header.block_size as usize;
        let page = segment.bytes.get(at..segment.bytes.len().min(at + block)).unwrap_or_default();
        let Some((magic, info, address, rem_len)) = fields(page) else { return stop(Ending::Short) };
        let lsn = Lsn(segment.start.0 + at as u64);
        if magic != segment.header.magic || address != lsn.0 || (info & LONG != 0) != (at == 0) {
            return stop(if page.iter().all(|b| *b == 0) { Ending::Zeros } else { Ending::Page });
        }
        let continued = (info & FIRST_IS_CONTRECORD != 0).then_some(rem_len);
        let left = match &self.state {
            _ if info & FIRST_IS_OVERWRITE_CONTRECORD != 0 => {
                self.state = State::Between;
                None
            }
            State::Between => None,
            State::Skipping { left } => Some(*left),
            State::Inside(partial) => Some(partial.left()),
        };
        if continued != left {
            return stop(Ending::Link);
        }
        let mut from = if at == 0 { LONG_HEADER } else { SHORT_HEADER };
        while from < block {
            if page.len() <= from {
                return Err((self.valid, Ending::Short));
            }
            match self.step(segment, lsn, page, &mut from, on)? {
                Step::Continue => {}
                Step::SegmentDone => return Ok(Step::SegmentDone),
            }
        }
        Ok(Step::Continue)
    }

    /// Takes the next piece of a page: to the end of a record or of the page.
    fn step(
        &mut self,
        segment: &Segment<'_>,
        page_lsn: Lsn,
        page: &[u8],
        from: &mut usize,
        on: &mut dyn FnMut(Fact),
    ) -> Result<Step, Stop> {
        let block = segment.header.block_size as usize;
        let rest = page.get(*from..).unwrap_or_default();
        match &mut self.state {
            State::Between => {
                let start = Lsn(page_lsn.0 + *from as u64);
                let total = u32_at(rest, 0).ok_or((self.valid, Ending::Short))?;
                if total == 0 {
                    return Err((self.valid, Ending::Zeros));
                }
                if !(HEADER as u32..=LONGEST).contains(&total) {
                    return Err((self.valid, Ending::Record));
                }
                self.state = State::Inside(Partial::new(start, total));
                Ok(Step::Continue)
            }
            State::Skipping { left } => {
                let taken = rest.len().min(*left as usize);
                *left -= taken as u32;
                let done = *left == 0;
                *from = aligned(*from + taken);
                if done {
                    self.state = State::Between;
                    self.valid = Lsn(page_lsn.0 + *from as u64);
                }
                Ok(Step::Continue)
            }
            State::Inside(partial) => {
                let taken = rest.len().min(partial.left() as usize);
                partial.take(rest.get(..taken).unwrap_or_default());
                let done = partial.left() == 0;
                *from = if done { aligned(*from + taken).min(block) } else { *from + taken };
                if !done {
                    return Ok(Step::Continue);
                }
                self.complete(segment, Lsn(page_lsn.0 + *from as u64), on)
            }
        }
    }

    /// Judges a record of which the last byte has come.
    fn complete(&mut self, segment: &Segment<'_>, end: Lsn, on: &mut dyn FnMut(Fact)) -> Result<Step, Stop> {
        let State::Inside(partial) = std::mem::replace(&mut self.state, State::Between) else {
            return Ok(Step::Continue);
        };
        let Some(header) = partial.checked_header() else { return Err((self.valid, Ending::Record)) };
        let linked = match self.prev {
            Some(prev) => header.prev == prev,
            None => header.prev < partial.start,
        };
        if !linked {
            return Err((self.valid, Ending::Link));
        }
        (self.prev, self.last) = (Some(partial.start), Some(partial.start));
        self.valid = end;
        if header.is_of_interest() {
            let context = decode::Context { lsn: partial.start, lsn_end: end, magic: segment.header.magic };
            if let Some(fact) = decode::fact(&header, &partial.kept, &context) {
                on(fact);
            }
        }
        if header.is_switch() {
            let used = end.offset(self.size);
            if used != 0 {
                self.valid = Lsn(end.0.saturating_add(self.size.bytes() - used));
            }
            return Ok(Step::SegmentDone);
        }
        Ok(Step::Continue)
    }
}

/// Records start at multiples of eight; so do pages.
fn aligned(offset: usize) -> usize {
    offset.next_multiple_of(8)
}

/// Magic, flags, address and remaining length of a page header.
fn fields(page: &[u8]) -> Option<(u16, u16, u64, u32)> {
    page.get(..SHORT_HEADER)?;
    Some((u16_at(page, 0)?, u16_at(page, 2)?, u64_at(page, 8)?, u32_at(page, 16)?))
}
