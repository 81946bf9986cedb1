//! Is this file the segment that its name says?

use super::page::{LongHeader, parse_long_header};
use super::{SegmentName, SegmentSize};
use crate::error::{Error, Result};

/// Compares a segment's first page with its name and its length, and gives the header back.
///
/// This catches recycled content, truncated and misnamed files, and files that are not WAL. Only the first
/// 40 bytes of `first_page` are looked at. The caller compares the system identifier, and the segment size
/// where another source tells it.
///
/// # Errors
/// [`Damaged`](crate::error::Kind::Damaged), saying what was found and what was expected: everything that
/// [`parse_long_header`] refuses, a length other than the segment size in the header, pages that are not
/// 8192 bytes, a position other than the name's, or a timeline above the name's.
pub fn check_segment(name: &SegmentName, first_page: &[u8], file_len: u64) -> Result<LongHeader> {
    let wrong = |what: String| Error::damaged(what).on(name);
    let header = parse_long_header(first_page).map_err(|error| error.on(name))?;
    let size = header.segment_size.bytes();
    if file_len != size {
        return Err(wrong(format!("the segment has {file_len} bytes, its header says {size}"))
            .hint("the file was truncated, padded, or is still being written"));
    }
    if header.block_size != 8192 {
        return Err(wrong(format!(
            "the segment has pages of {} bytes, supported are 8192",
            header.block_size
        )));
    }
    let start = name.start(header.segment_size).map_err(|error| wrong(error.to_string()))?;
    if header.address != start {
        return Err(wrong(format!(
            "the segment holds the log from {} on ({}), its name says {start}",
            header.address,
            found_name(&header, header.segment_size),
        ))
        .hint("the file is misnamed, or was recycled and not yet overwritten"));
    }
    if header.timeline > name.timeline {
        return Err(wrong(format!(
            "the segment was written on timeline {}, its name says timeline {}",
            header.timeline, name.timeline
        ))
        .hint("the file is misnamed"));
    }
    Ok(header)
}

fn found_name(header: &LongHeader, size: SegmentSize) -> SegmentName {
    SegmentName::containing(header.timeline, header.address, size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::page::test_header;
    use super::*;
    use crate::error::Kind;

    const LEN: u64 = 16 << 20;

    fn check(name: &str, page: &[u8], len: u64) -> Result<LongHeader> {
        check_segment(&name.parse().unwrap(), page, len)
    }

    #[test]
    fn a_segment_may_begin_with_its_parents_bytes() {
        assert_eq!(check("000000010000000000000003", &test_header(), LEN).unwrap().timeline.get(), 1);
        assert_eq!(check("000000020000000000000003", &test_header(), LEN).unwrap().timeline.get(), 1);
    }

    #[test]
    fn every_disagreement_names_both_sides() {
        let later = {
            let mut page = test_header();
            page[4] = 3;
            page
        };
        let wide = {
            let mut page = test_header();
            page[36..40].copy_from_slice(&16384u32.to_le_bytes());
            page
        };
        let gigabyte = {
            let mut page = test_header();
            page[32..36].copy_from_slice(&(1u32 << 30).to_le_bytes());
            page
        };
        let good = "000000020000000000000003";
        for (name, page, len, says) in [
            (good, &test_header(), LEN - 1, vec!["16777215", "16777216"]),
            (good, &test_header(), LEN * 2, vec!["33554432", "16777216"]),
            ("000000020000000000000004", &test_header(), LEN, vec!["0/3000000", "0/4000000"]),
            ("000000020000000100000003", &test_header(), LEN, vec!["000000010000000000000003", "1/3000000"]),
            (good, &later, LEN, vec!["timeline 3", "timeline 2"]),
            (good, &wide, LEN, vec!["16384", "8192"]),
            ("000000020000000000000004", &gigabyte, 1 << 30, vec!["00000003"]),
            (good, &vec![0; 8192], LEN, vec!["zeros"]),
        ] {
            let error = check(name, page, len).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged);
            assert!(says.iter().all(|word| error.story().contains(word)), "{}", error.story());
            assert_eq!(error.object(), Some(name));
        }
    }

    proptest! {
        #[test]
        fn a_changed_header_never_panics(at in 0usize..40, value: u8, len in 0u64..1 << 31) {
            let mut page = test_header();
            page[at] = value;
            let _ = check("000000020000000000000003", &page, len);
        }
    }
}
