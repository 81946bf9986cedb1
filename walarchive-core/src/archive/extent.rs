//! Which pages of a file are where (FORMAT.md §7).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bytes of a page of a file, whatever the server's block size.
pub const PAGE: usize = 8192;

/// Whether bytes of a page, or fewer, are all zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    bytes.chunks(PAGE).all(|chunk| ZEROS.starts_with(chunk))
}

/// `count` pages of a file from `page` on are in a pack, from page `first` of a frame on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32, u32, u32)", into = "(u32, u32, u32, u32, u32)")]
pub struct Extent {
    /// First page of the file.
    pub page: u32,
    /// How many pages.
    pub count: u32,
    /// Number of the pack in the manifest.
    pub pack: u32,
    /// Number of the frame in the pack.
    pub frame: u32,
    /// First page within the frame.
    pub first: u32,
}

impl From<(u32, u32, u32, u32, u32)> for Extent {
    fn from((page, count, pack, frame, first): (u32, u32, u32, u32, u32)) -> Extent {
        Extent { page, count, pack, frame, first }
    }
}

impl From<Extent> for (u32, u32, u32, u32, u32) {
    fn from(extent: Extent) -> Self {
        (extent.page, extent.count, extent.pack, extent.frame, extent.first)
    }
}

/// The extents of one file, ascending by page and disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// Adds one page that lies at `extent` (of count 1), joined to the last extent when it follows it both in the
    /// file and in the pack, whose frames hold `frame_pages` pages each.
    pub fn push_page(&mut self, page: Extent, frame_pages: u32) {
        let place =
            |extent: &Extent| u64::from(extent.frame) * u64::from(frame_pages) + u64::from(extent.first);
        if let Some(last) = self.0.last_mut()
            && last.pack == page.pack
            && last.page + last.count == page.page
            && place(last) + u64::from(last.count) == place(&page)
        {
            last.count += 1;
        } else {
            self.0.push(page);
        }
    }

    /// Adds a part of an older backup's extent, joined to the last extent when it goes on there.
    pub fn push_part(&mut self, part: Extent) {
        match self.0.last_mut() {
            Some(last)
                if (last.pack, last.frame) == (part.pack, part.frame)
                    && last.page + last.count == part.page
                    && u64::from(last.first) + u64::from(last.count) == u64::from(part.first) =>
            {
                last.count += part.count;
            }
            _ => self.0.push(part),
        }
    }

    /// Gives every pack the number that `number` says.
    pub fn renumber(&mut self, number: impl Fn(u32) -> Result<u32>) -> Result<()> {
        self.0.iter_mut().try_for_each(|extent| {
            extent.pack = number(extent.pack)?;
            Ok(())
        })
    }

    /// Where page `page` of the file is, as an extent of one page; `None` where the file has a hole.
    pub fn find(&self, page: u32) -> Option<Extent> {
        let at = self.0.partition_point(|extent| extent.page <= page).checked_sub(1)?;
        let extent = self.0.get(at)?;
        let offset = page - extent.page;
        let first = extent.first.checked_add(offset)?;
        (offset < extent.count).then_some(Extent { page, count: 1, first, ..*extent })
    }

    /// Adds the extents of a later stretch of the same file.
    pub fn append(&mut self, mut later: Extents) {
        self.0.append(&mut later.0);
    }

    /// The extents in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Extent> {
        self.0.iter()
    }

    /// Whether the file is all zeros.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Holds the extents against the rules: ascending, disjoint, inside a file of `size` bytes, and in one of
    /// `packs` packs.
    pub fn check(&self, size: u64, packs: usize) -> Result<()> {
        let pages = size.div_ceil(PAGE as u64);
        let mut next = 0u64;
        for extent in &self.0 {
            let (start, end) = (u64::from(extent.page), u64::from(extent.page) + u64::from(extent.count));
            if extent.count == 0 || start < next || end > pages || extent.pack as usize >= packs {
                return Err(Error::damaged(format!("a manifest's extent {extent:?} is impossible")));
            }
            next = end;
        }
        Ok(())
    }

    /// The parts of the extents that lie in pages `start..end` of the file, each with how many pages of its extent lie
    /// before it.
    pub fn within(&self, start: u32, end: u32) -> impl Iterator<Item = (Extent, u32)> + '_ {
        self.0.iter().filter_map(move |extent| {
            let from = extent.page.max(start);
            let to = (extent.page + extent.count).min(end);
            (from < to).then(|| (Extent { page: from, count: to - from, ..*extent }, from - extent.page))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(page: u32, pack: u32, frame: u32, first: u32) -> Extent {
        Extent { page, count: 1, pack, frame, first }
    }

    #[test]
    fn neighbours_become_one_extent_across_frames() {
        let mut extents = Extents::default();
        for (n, place) in [(0, 30), (1, 31), (2, 32), (5, 33), (6, 40)] {
            extents.push_page(page(n, 0, place / 32, place % 32), 32);
        }
        let got: Vec<_> = extents.iter().map(|e| (e.page, e.count, e.frame, e.first)).collect();
        assert_eq!(got, [(0, 3, 0, 30), (5, 1, 1, 1), (6, 1, 1, 8)]);
    }

    #[test]
    fn impossible_extents_are_refused() {
        let check = |list: &[(u32, u32, u32, u32, u32)], size| {
            Extents(list.iter().copied().map(Extent::from).collect()).check(size, 1)
        };
        assert!(check(&[(0, 2, 0, 0, 0), (2, 1, 0, 0, 2)], 20_000).is_ok());
        assert!(check(&[(0, 4, 0, 0, 0)], 20_000).is_err(), "beyond the end");
        assert!(check(&[(0, 2, 0, 0, 0), (1, 1, 0, 0, 2)], 20_000).is_err(), "overlap");
        assert!(check(&[(0, 0, 0, 0, 0)], 20_000).is_err(), "empty");
        assert!(check(&[(0, 1, 1, 0, 0)], 20_000).is_err(), "unknown pack");
        assert!(check(&[(u32::MAX, u32::MAX, 0, 0, 0)], u64::MAX).is_ok(), "no overflow");
    }
}
