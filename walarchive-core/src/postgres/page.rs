//! Data pages: their checksum, their position, and the files that consist of them.

use crate::wal::Lsn;

mod relation;

pub use relation::{DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, RelationFile, relation_file};

/// The size of a page, in bytes, unless PostgreSQL was built otherwise.
pub const PAGE_SIZE: usize = 8192;

/// Pages in one file of a relation (1 GiB), unless PostgreSQL was built otherwise.
pub const PAGES_PER_FILE: u32 = 131_072;

/// What a page says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// The checksum holds.
    Ok,
    /// All zero: allocated, never written. Such a page has no checksum.
    New,
    /// The checksum does not hold, and the page was changed at or after the given position: it was being
    /// written while it was read, and the log restores it.
    Newer,
    /// The checksum does not hold, and the log does not restore the page.
    Bad {
        /// What the page's header says.
        stored: u16,
        /// What its bytes give.
        computed: u16,
    },
}

/// How many sums run side by side.
const SUMS: usize = 32;
/// Bytes that go into all sums once.
const ROW: usize = SUMS * 4;
const PRIME: u32 = 16_777_619;

/// Where each sum starts; fixed by PostgreSQL's storage/checksum_impl.h.
const OFFSETS: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Where the checksum stands in the page header.
const CHECKSUM: usize = 8;
/// Where `pd_upper` stands.
const UPPER: usize = 14;

#[inline(always)]
fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

#[inline(always)]
fn add_row(sums: &mut [u32; SUMS], row: &[u8; ROW]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = mix(*sum, u32::from_le_bytes(*word));
    }
}

/// The checksum of a page; `block_no` is its number within the whole relation, not within one file.
///
/// The checksum stored in the page does not count. The page's length must be a multiple of 128 bytes, as that
/// of every page is; a rest is left out.
#[must_use]
pub fn checksum(page: &[u8], block_no: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW>();
    let mut sums = OFFSETS;
    if let Some((first, rest)) = rows.split_first() {
        let mut first = *first;
        first[CHECKSUM..CHECKSUM + 2].fill(0);
        add_row(&mut sums, &first);
        for row in rest {
            add_row(&mut sums, row);
        }
    }
    let folded = sums.iter().fold(block_no, |all, sum| all ^ mix(mix(*sum, 0), 0));
    // One of 1 to 65535: the value 0 would look like a page without a checksum.
    (folded % 65_535 + 1) as u16
}

fn word(page: &[u8], at: usize) -> u16 {
    page.get(at..at + 2).and_then(|raw| raw.try_into().ok()).map_or(0, u16::from_le_bytes)
}

/// The position after the log record that last changed the page; 0/0 for fewer than eight bytes.
#[must_use]
pub fn page_lsn(page: &[u8]) -> Lsn {
    let Some((raw, _)) = page.split_first_chunk::<8>() else { return Lsn(0) };
    // Two 32-bit words, the high one first, each little-endian.
    Lsn(u64::from_le_bytes(*raw).rotate_left(32))
}

/// Whether the page was never initialised: `pd_upper` is zero, as PostgreSQL tests it.
#[must_use]
pub fn is_new(page: &[u8]) -> bool {
    word(page, UPPER) == 0
}

/// The checksum in the page's header.
#[must_use]
pub fn stored_checksum(page: &[u8]) -> u16 {
    word(page, CHECKSUM)
}

/// Judges a page that was read while the server may have been writing it.
///
/// `block_no` is the page's number within the whole relation; `start_lsn` the position where the backup that
/// reads the page begins: whatever changed later is in the log of the backup. A page that is new by its
/// header, but not all zero, is judged by its checksum, as the server does when it reads it.
#[must_use]
pub fn verify(page: &[u8], block_no: u32, start_lsn: Lsn) -> PageState {
    if is_new(page) && page.iter().all(|b| *b == 0) {
        return PageState::New;
    }
    let (stored, computed) = (stored_checksum(page), checksum(page, block_no));
    if stored == computed {
        PageState::Ok
    } else if page_lsn(page) >= start_lsn {
        PageState::Newer
    } else {
        PageState::Bad { stored, computed }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(lsn: u64) -> Vec<u8> {
        let mut page: Vec<u8> = (0..PAGE_SIZE).map(|n| (n * 31 % 251) as u8).collect();
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page
    }

    fn sealed(lsn: u64, block_no: u32) -> Vec<u8> {
        let mut page = page(lsn);
        let sum = checksum(&page, block_no);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn a_page_is_judged() {
        let good = sealed(0x2_0000_0030, 7);
        assert_eq!(page_lsn(&good), Lsn(0x2_0000_0030));
        assert_eq!(verify(&good, 7, Lsn(u64::MAX)), PageState::Ok);
        let moved = verify(&good, 8, Lsn(u64::MAX));
        assert!(matches!(moved, PageState::Bad { stored, computed } if stored != computed), "{moved:?}");
        assert_eq!(verify(&good, 8, Lsn(0x2_0000_0030)), PageState::Newer);
        assert!(matches!(verify(&good, 8, Lsn(0x2_0000_0031)), PageState::Bad { .. }));
    }

    #[test]
    fn only_a_page_of_zeros_is_new() {
        let mut page = vec![0; PAGE_SIZE];
        assert!(is_new(&page));
        assert_eq!(verify(&page, 3, Lsn(1)), PageState::New);
        page[5000] = 1;
        assert!(is_new(&page));
        assert!(matches!(verify(&page, 3, Lsn(1)), PageState::Bad { stored: 0, .. }));
    }

    /// The definition, word by word.
    fn slow(page: &[u8], block_no: u32) -> u16 {
        let mut page = page.to_vec();
        page[8..10].fill(0);
        page.resize(page.len() + 2 * ROW, 0);
        let mut sums = OFFSETS;
        for (n, raw) in page.chunks(4).enumerate() {
            let mixed = sums[n % 32] ^ u32::from_le_bytes(raw.try_into().unwrap());
            sums[n % 32] = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
        }
        let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block_no;
        u16::try_from(folded % 65_535).unwrap() + 1
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_checksum_agrees_with_its_definition(block_no: u32, bytes in proptest::collection::vec(any::<u8>(), PAGE_SIZE)) {
            prop_assert_eq!(checksum(&bytes, block_no), slow(&bytes, block_no));
        }

        #[test]
        fn every_changed_byte_outside_the_checksum_shows(at in 10usize..PAGE_SIZE, by in 1u8..) {
            let mut page = sealed(1, 0);
            page[at] ^= by;
            prop_assert_ne!(verify(&page, 0, Lsn(u64::MAX)), PageState::Ok);
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = verify(&bytes, 1, Lsn(5));
        }
    }

    /// Run with `--release -- --ignored --nocapture` to see the speed.
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let data: Vec<u8> = (0..64 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761) as u8).collect();
        let begin = std::time::Instant::now();
        let mut all = 0u64;
        for round in 0..8 {
            for page in data.chunks(PAGE_SIZE) {
                all += u64::from(checksum(page, round));
            }
        }
        let rate = (8 * data.len()) as f64 / begin.elapsed().as_secs_f64() / 1e9;
        println!("{rate:.2} GB/s ({all})");
    }
}
