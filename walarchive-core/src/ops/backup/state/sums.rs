//! What pages are recognised by.

use std::ops::Range;
use std::sync::LazyLock;

use crate::archive::PAGE;

/// Of every page of a file, from its first one on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops::backup) enum Sums {
    /// CRC-32C, for pages that have the position of their last change: it need only tell what was changed without WAL.
    Crc(Vec<u32>),
    /// BLAKE3, cut to 128 bits: enough to tell pages that say nothing about themselves.
    Digest(Vec<Digest>),
}

pub(in crate::ops::backup) type Digest = [u8; 16];

/// The effect that a page of zeros behind some bytes has on their CRC, for each byte of the CRC.
static BEHIND: LazyLock<[[u32; 256]; 4]> = LazyLock::new(|| {
    std::array::from_fn(|byte| {
        std::array::from_fn(|value| crc32c::crc32c_combine((value as u32) << (8 * byte), 0, PAGE))
    })
});

/// The CRC-32C of some bytes and a whole page behind them.
fn with_page(before: u32, page: u32) -> u32 {
    let bytes = before.to_le_bytes();
    let shifted = BEHIND.iter().zip(bytes).fold(0, |all, (table, byte)| all ^ table[usize::from(byte)]);
    shifted ^ page
}

impl Sums {
    pub(in crate::ops::backup) fn new(has_positions: bool) -> Sums {
        if has_positions { Sums::Crc(Vec::new()) } else { Sums::Digest(Vec::new()) }
    }

    /// Adds the next page, or the rest of the file, behind bytes whose CRC-32C is `before`; gives the CRC-32C of all.
    pub(in crate::ops::backup) fn add(&mut self, page: &[u8], before: u32) -> u32 {
        match self {
            Sums::Crc(sums) => {
                let crc = crc32c::crc32c(page);
                sums.push(crc);
                match page.len() {
                    PAGE => with_page(before, crc),
                    len => crc32c::crc32c_combine(before, crc, len),
                }
            }
            Sums::Digest(sums) => {
                let mut digest = [0; 16];
                digest.copy_from_slice(&blake3::hash(page).as_bytes()[..16]);
                sums.push(digest);
                crc32c::crc32c_append(before, page)
            }
        }
    }

    /// The sum of a whole page of these; `None` where pages have no positions.
    pub(in crate::ops::backup) fn crc_of(&self, number: u32) -> Option<u32> {
        match self {
            Sums::Crc(sums) => sums.get(number as usize).copied(),
            Sums::Digest(_) => None,
        }
    }

    /// Adds a whole page whose sum is known, behind bytes whose CRC-32C is `before`; gives the CRC-32C of all. Only where
    /// pages have positions.
    pub(in crate::ops::backup) fn add_known(&mut self, crc: u32, before: u32) -> u32 {
        if let Sums::Crc(sums) = self {
            sums.push(crc);
        }
        with_page(before, crc)
    }

    /// Whether the last page that was added is page `number` of these.
    pub(in crate::ops::backup) fn has_at(&self, number: u32, added: &Sums) -> bool {
        match (self, added) {
            (Sums::Crc(known), Sums::Crc(added)) => is_same(known.get(number as usize), added.last()),
            (Sums::Digest(known), Sums::Digest(added)) => is_same(known.get(number as usize), added.last()),
            _ => false,
        }
    }

    /// The sums of some pages, and the CRC-32C of a stretch of `len` bytes that consists of them, if they tell it.
    pub(in crate::ops::backup) fn part(&self, pages: Range<u32>, len: u64) -> Option<(Sums, Option<u32>)> {
        let range = pages.start as usize..pages.end as usize;
        match self {
            Sums::Digest(sums) => Some((Sums::Digest(sums.get(range)?.to_vec()), None)),
            Sums::Crc(sums) => {
                let part = sums.get(range)?;
                let (last, whole) = match part.split_last() {
                    Some((last, whole)) => (Some(*last), whole),
                    None => (None, part),
                };
                let crc = whole.iter().fold(0, |all, page| with_page(all, *page));
                let rest = len.checked_sub((whole.len() * PAGE) as u64)? as usize;
                let crc = last.map_or(crc, |last| crc32c::crc32c_combine(crc, last, rest));
                Some((Sums::Crc(part.to_vec()), Some(crc)))
            }
        }
    }

    /// Adds the sums of a later stretch of the same file.
    pub(in crate::ops::backup) fn append(&mut self, later: Sums) {
        match (self, later) {
            (Sums::Crc(all), Sums::Crc(mut later)) => all.append(&mut later),
            (Sums::Digest(all), Sums::Digest(mut later)) => all.append(&mut later),
            // Stretches of one file are of one kind.
            (all, later) => *all = later,
        }
    }

    pub(in crate::ops::backup) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Sums::Crc(sums) => sums.iter().flat_map(|sum| sum.to_le_bytes()).collect(),
            Sums::Digest(sums) => sums.concat(),
        }
    }

    pub(in crate::ops::backup) fn from_bytes(has_positions: bool, bytes: &[u8]) -> Option<Sums> {
        if has_positions {
            let (sums, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then(|| Sums::Crc(sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect()))
        } else {
            let (sums, rest) = bytes.as_chunks::<16>();
            rest.is_empty().then(|| Sums::Digest(sums.to_vec()))
        }
    }
}

fn is_same<T: PartialEq>(known: Option<&T>, added: Option<&T>) -> bool {
    known.is_some() && known == added
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_crc_is_that_of_all_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..5 * PAGE), positions: bool) {
            let mut sums = Sums::new(positions);
            let crc = bytes.chunks(PAGE).fold(0, |crc, page| sums.add(page, crc));
            prop_assert_eq!(crc, crc32c::crc32c(&bytes));
            let read = Sums::from_bytes(positions, &sums.to_bytes());
            prop_assert_eq!(read.as_ref(), Some(&sums));
            let pages = bytes.len().div_ceil(PAGE) as u32;
            let from = pages / 2;
            let tail = &bytes[from as usize * PAGE..];
            let (part, crc) = sums.part(from..pages, tail.len() as u64).unwrap();
            prop_assert_eq!(crc, positions.then(|| crc32c::crc32c(tail)));
            let mut again = Sums::new(positions);
            tail.chunks(PAGE).fold(0, |crc, page| again.add(page, crc));
            prop_assert_eq!(part, again);
            prop_assert_eq!(sums.part(0..pages + 1, bytes.len() as u64), None);
        }
    }

    #[test]
    fn pages_are_recognised_where_they_were() {
        for positions in [true, false] {
            let (mut known, mut now) = (Sums::new(positions), Sums::new(positions));
            for byte in [1, 2] {
                known.add(&[byte; PAGE], 0);
            }
            now.add(&[2; PAGE], 0);
            assert!(known.has_at(1, &now) && !known.has_at(0, &now) && !known.has_at(2, &now));
        }
    }
}
