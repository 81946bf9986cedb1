//! A writer of log, as PostgreSQL lays it out, and what the scanner makes of it.

use proptest::prelude::*;

use super::*;
use crate::wal::SegmentSize;

const SEGMENT: usize = 1 << 20;
const PAGE: usize = 8192;

fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT as u64).unwrap()
}

/// Writes records one after the other into a log that starts with segment 1.
struct Writer {
    magic: u16,
    /// The bytes from segment 1 on.
    log: Vec<u8>,
    prev: u64,
}

impl Writer {
    fn new(magic: u16) -> Writer {
        Writer { magic, log: Vec::new(), prev: 0 }
    }

    fn lsn(&self) -> u64 {
        (SEGMENT + self.log.len()) as u64
    }

    fn page_header(&mut self, flags: u16, rem_len: u32) {
        let (address, long) = (self.lsn(), self.log.len().is_multiple_of(SEGMENT));
        self.log.extend(self.magic.to_le_bytes());
        self.log.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.log.extend(1u32.to_le_bytes());
        self.log.extend(address.to_le_bytes());
        self.log.extend(rem_len.to_le_bytes());
        self.log.extend([0; 4]);
        if long {
            self.log.extend(42u64.to_le_bytes());
            self.log.extend((SEGMENT as u32).to_le_bytes());
            self.log.extend((PAGE as u32).to_le_bytes());
        }
    }

    /// Writes a record with everything after its header given; returns where it starts and ends.
    fn record(&mut self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> (Lsn, Lsn) {
        if self.log.len().is_multiple_of(PAGE) {
            self.page_header(0, 0);
        }
        let start = self.lsn();
        let mut bytes = Vec::new();
        bytes.extend((24 + body.len() as u32).to_le_bytes());
        bytes.extend(xid.to_le_bytes());
        bytes.extend(self.prev.to_le_bytes());
        bytes.extend([info, rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &bytes);
        bytes.extend(crc.to_le_bytes());
        bytes.extend(body);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if self.log.len().is_multiple_of(PAGE) {
                self.page_header(1, rest.len() as u32);
            }
            let room = PAGE - self.log.len() % PAGE;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.log.extend(now);
            rest = later;
        }
        self.log.resize(self.log.len().next_multiple_of(8), 0);
        self.prev = start;
        (Lsn(start), Lsn(self.lsn()))
    }

    fn commit(&mut self, xid: u32, time: i64) -> Fact {
        let (lsn, lsn_end) = self.record(1, 0, xid, &short(&time.to_le_bytes()));
        Fact::Commit { xid, time_us: time, lsn, lsn_end }
    }

    fn restore_point(&mut self, name: &str, time: i64) -> Fact {
        let mut data = time.to_le_bytes().to_vec();
        data.extend(name.as_bytes());
        data.resize(72, 0);
        let (lsn, lsn_end) = self.record(0, 0x70, 0, &short(&data));
        Fact::RestorePoint { name: name.into(), time_us: time, lsn, lsn_end }
    }

    fn switch(&mut self) {
        self.record(0, 0x40, 0, &[]);
        self.fill();
    }

    fn fill(&mut self) {
        self.log.resize(self.log.len().next_multiple_of(SEGMENT), 0);
    }
}

fn short(data: &[u8]) -> Vec<u8> {
    [&[255, data.len() as u8], data].concat()
}

fn long(data: &[u8]) -> Vec<u8> {
    [&[254], &(data.len() as u32).to_le_bytes()[..], data].concat()
}

fn scan(log: &[u8], first: usize) -> (Vec<Fact>, Vec<ScanEnd>) {
    let (mut scanner, mut facts) = (Scanner::new(size()), Vec::new());
    let ends = log
        .chunks(SEGMENT)
        .enumerate()
        .skip(first)
        .map(|(n, bytes)| {
            let start = Lsn(((n + 1) * SEGMENT) as u64);
            scanner.segment(start, bytes, &mut |fact| facts.push(fact)).unwrap()
        })
        .collect();
    (facts, ends)
}

/// Four segments with records of many lengths, and the facts in them.
fn sample() -> (Vec<u8>, Vec<Fact>) {
    let (mut w, mut facts) = (Writer::new(0xD110), Vec::new());
    let mut n = 0u32;
    while w.log.len() < SEGMENT * 2 + 5000 {
        n += 1;
        let noise = vec![n as u8; (n as usize * 977) % 9001];
        w.record(10, 0, n, &long(&noise));
        facts.push(w.commit(n, i64::from(n) * 1_000_000));
    }
    facts.push(w.restore_point("before the upgrade", -5));
    w.switch();
    facts.push(w.commit(999, 7));
    w.fill();
    (w.log, facts)
}

#[test]
fn every_fact_is_found_once_across_pages_and_segments() {
    let (log, facts) = sample();
    let (found, ends) = scan(&log, 0);
    assert_eq!(found, facts);
    assert_eq!(ends.len(), 4);
    assert_eq!(&ends[..3], &[ScanEnd::Whole; 3]);
    let at = facts.last().unwrap().range().1;
    assert_eq!(ends[3], ScanEnd::Ended { at, why: Ending::Zeros });
}

#[test]
fn a_scan_may_start_with_any_segment() {
    let (log, facts) = sample();
    for first in 1..4 {
        let (found, ends) = scan(&log, first);
        let expected: Vec<_> =
            facts.iter().filter(|fact| fact.range().0.0 >= ((first + 1) * SEGMENT) as u64).cloned().collect();
        assert_eq!(found, expected, "from {first}");
        assert_eq!(ends[0] == ScanEnd::Whole, first < 3);
    }
}

#[test]
fn a_record_longer_than_segments_is_carried() {
    let mut w = Writer::new(0xD118);
    let mut data = 77i64.to_le_bytes().to_vec();
    data.resize(SEGMENT * 2 + 12345, 9);
    let (lsn, lsn_end) = w.record(1, 0x20, 5, &long(&data));
    let after = w.commit(6, 8);
    w.fill();
    let (found, ends) = scan(&w.log, 0);
    assert_eq!(found, [Fact::Abort { xid: 5, time_us: 77, lsn, lsn_end }, after.clone()]);
    assert_eq!(&ends[..2], &[ScanEnd::Whole; 2]);
    assert_eq!(scan(&w.log, 1).0, [after], "its start was not seen");
}

#[test]
fn damage_ends_the_log_at_the_last_good_record() {
    let (log, facts) = sample();
    let hit = facts[20].range().0.0 as usize - SEGMENT;
    let mut bad = log.clone();
    bad[hit + 26] ^= 1;
    let (found, ends) = scan(&bad, 0);
    assert!(found.len() >= 20 && found[..20] == facts[..20]);
    let at = facts[20].range().0;
    assert_eq!(ends[0], ScanEnd::Ended { at, why: Ending::Record });
    assert!(!found.contains(&facts[20]));
}

#[test]
fn a_missing_continuation_ends_the_log_where_the_record_began() {
    let mut w = Writer::new(0xD113);
    let first = w.commit(1, 1);
    w.record(10, 0, 1, &long(&vec![1; SEGMENT]));
    let log = w.log[..SEGMENT].to_vec();
    let mut scanner = Scanner::new(size());
    assert_eq!(scanner.segment(Lsn(SEGMENT as u64), &log, &mut |_| {}).unwrap(), ScanEnd::Whole);
    let other = {
        let mut w = Writer::new(0xD113);
        w.log = vec![0; SEGMENT];
        w.commit(2, 2);
        w.fill();
        w.log[SEGMENT..].to_vec()
    };
    let end = scanner.segment(Lsn(2 * SEGMENT as u64), &other, &mut |_| {}).unwrap();
    assert_eq!(end, ScanEnd::Ended { at: first.range().1, why: Ending::Link });
}

#[test]
fn a_record_that_was_given_up_is_passed_over() {
    let mut w = Writer::new(0xD118);
    let before = w.commit(1, 1);
    let prev = w.prev;
    w.record(10, 0, 1, &long(&[1; 20_000]));
    w.log.truncate(PAGE);
    w.prev = prev;
    w.page_header(8, 0);
    let after = w.commit(2, 2);
    w.fill();
    assert_eq!(scan(&w.log, 0).0, [before, after]);
}

#[test]
fn prepared_transactions_have_the_number_that_was_prepared() {
    for (magic, item) in [(0xD106u16, 12usize), (0xD110, 12), (0xD118, 16)] {
        for (info, commit) in [(0xB0u8, true), (0xC0, false)] {
            let flags: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8;
            let mut data = 123i64.to_le_bytes().to_vec();
            data.extend(flags.to_le_bytes());
            data.extend([1; 8]);
            for (count, bytes) in [(3u32, 4usize), (2, 12), (1, item), (2, 16)] {
                if bytes == 16 && count == 2 && !commit {
                    continue;
                }
                data.extend(count.to_le_bytes());
                data.extend(vec![7; bytes * count as usize]);
            }
            data.extend(4711u32.to_le_bytes());
            data.extend(b"gid\0");
            let mut w = Writer::new(magic);
            let (lsn, lsn_end) = w.record(1, info, 0, &long(&data));
            w.fill();
            let (xid, time_us) = (4711, 123);
            let expected = if commit {
                Fact::Commit { xid, time_us, lsn, lsn_end }
            } else {
                Fact::Abort { xid, time_us, lsn, lsn_end }
            };
            assert_eq!(scan(&w.log, 0).0, [expected], "{magic:#x} {info:#x}");
        }
    }
}

#[test]
fn main_data_stands_after_the_data_of_blocks() {
    let time = 9i64.to_le_bytes();
    for (magic, image_info) in [(0xD10Du16, 0x03u8), (0xD110, 0x05)] {
        // Origin, top-level transaction, a block with data and a compressed image with a hole, a second one.
        let mut body = vec![253, 1, 0, 252, 1, 0, 0, 0];
        body.extend([0, 0x10 | 0x20, 5, 0, 6, 0, 0, 0, image_info, 1, 0]);
        body.extend([0; 16]);
        body.extend([1, 0x80 | 0x20, 3, 0, 0, 0, 0, 0]);
        body.extend([255, 8]);
        body.extend([0xEE; 14]);
        body.extend(time);
        let mut w = Writer::new(magic);
        w.record(1, 0, 3, &body);
        w.fill();
        let found = scan(&w.log, 0).0;
        assert_eq!(found.iter().map(Fact::time_us).collect::<Vec<_>>(), [9], "{magic:#x}");
    }
}

#[test]
fn a_partial_segment_may_be_short() {
    let mut w = Writer::new(0xD116);
    let fact = w.commit(1, 1);
    let (found, ends) = scan(&w.log, 0);
    assert_eq!(ends, [ScanEnd::Ended { at: fact.range().1, why: Ending::Short }]);
    assert_eq!(found, [fact]);
    assert_eq!(scan(&w.log[..50], 0).1, [ScanEnd::Ended { at: Lsn(SEGMENT as u64), why: Ending::Short }]);
}

#[test]
fn what_is_no_segment_is_refused() {
    let mut scanner = Scanner::new(size());
    assert!(scanner.segment(Lsn(8), &[], &mut |_| {}).is_err());
    assert!(scanner.segment(Lsn(0), &vec![0; SEGMENT + 1], &mut |_| {}).is_err());
}

#[test]
fn times_count_from_2000() {
    assert_eq!(unix_us(0), 946_684_800_000_000);
    assert_eq!(unix_us(i64::MAX), i64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to the bytes, no fact is invented, and those before the first change are found.
    #[test]
    fn changed_logs_never_panic_nor_invent(
        changes in proptest::collection::vec((0usize..SEGMENT * 4, any::<u8>()), 1..20),
    ) {
        let (mut log, facts) = sample();
        let mut first = usize::MAX;
        for (at, value) in changes {
            if log[at] != value {
                first = first.min(at);
            }
            log[at] = value;
        }
        let (found, _) = scan(&log, 0);
        for fact in &found {
            prop_assert!(facts.contains(fact));
        }
        for fact in facts.iter().filter(|fact| ((fact.range().1.0 as usize) - SEGMENT) <= first) {
            prop_assert!(found.contains(fact));
        }
    }

    #[test]
    fn random_pages_never_panic(
        body in proptest::collection::vec(any::<u8>(), 0..3 * PAGE),
        keep in 0usize..200,
    ) {
        let (mut log, _) = sample();
        let end = (keep + body.len()).min(SEGMENT);
        log[keep..end].copy_from_slice(&body[..end - keep]);
        let _ = scan(&log[..SEGMENT], 0);
        let _ = scan(&body, 0);
    }

    /// Records whose checksum holds but whose content is nonsense.
    #[test]
    fn random_bodies_never_panic(
        bodies in proptest::collection::vec((0u8..2, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300)), 1..30),
    ) {
        let mut w = Writer::new(0xD118);
        for (rmgr, info, body) in &bodies {
            w.record(*rmgr, info & !0x40, 1, body);
        }
        let last = w.commit(4, 4);
        w.fill();
        let found = scan(&w.log, 0).0;
        prop_assert_eq!(found.last(), Some(&last));
    }
}
