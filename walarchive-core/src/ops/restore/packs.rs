//! Pages of files, out of packs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::archive::{Catalog, Extent, PAGE, PackReader, PackRecord};
use crate::codec::Framer;
use crate::crossing::Bridge;
use crate::error::{Error, Result};

/// Stored bytes that one read asks for at most, unless one frame is longer.
const READ: u64 = 4 << 20;

/// The packs of a backup, opened when they are first needed.
pub(super) struct Packs {
    catalog: Catalog,
    records: Vec<PackRecord>,
    open: Mutex<BTreeMap<u32, Arc<PackReader>>>,
    bridge: Bridge,
}

/// The frame that was unpacked last, by pack and number: small files share frames.
pub(super) type LastFrame = Option<(u32, usize, Vec<u8>)>;
/// Unpackers, by codec.
pub(super) type Framers = BTreeMap<&'static str, Box<dyn Framer>>;

impl Packs {
    pub(super) fn new(catalog: Catalog, records: Vec<PackRecord>, bridge: Bridge) -> Packs {
        Packs { catalog, records, open: Mutex::default(), bridge }
    }

    fn get(&self, number: u32) -> Result<Arc<PackReader>> {
        let poisoned = |_| Error::bug("a worker died with the packs");
        if let Some(pack) = self.open.lock().map_err(poisoned)?.get(&number) {
            return Ok(pack.clone());
        }
        let record = self.records.get(number as usize).ok_or_else(|| {
            Error::damaged(format!("a file refers to pack {number}, which the manifest does not have"))
        })?;
        let pack = self.bridge.wait(PackReader::open(&self.catalog.archive, &self.catalog.place, record))?;
        let pack = Arc::new(pack);
        self.open.lock().map_err(poisoned)?.insert(number, pack.clone());
        Ok(pack)
    }

    /// Gives the pages of an extent, each with its number in the file.
    pub(super) fn pages(
        &self,
        extent: &Extent,
        framers: &mut Framers,
        last: &mut LastFrame,
        each: &mut dyn FnMut(u32, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let pack = self.get(extent.pack)?;
        let (mut page, end) = (extent.page, extent.page + extent.count);
        let (mut frame, mut first) = (extent.frame as usize, extent.first);
        // Skips whole frames: the part of an extent that a worker is given may begin far behind its start.
        while let Some(entry) = pack.frames().get(frame)
            && first >= entry.pages()
        {
            first -= entry.pages();
            frame += 1;
        }
        let framer = match framers.entry(pack.codec().name()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(pack.framer()?),
        };
        while page < end {
            let batch = self.batch(&pack, frame, first, end - page)?;
            let stored = match last {
                Some((number, at, _)) if (*number, *at) == (extent.pack, frame) && batch.len() == 1 => None,
                _ => Some(self.bridge.wait(pack.read(batch.clone()))?),
            };
            let base = pack.frames().get(frame).map_or(0, |entry| entry.at);
            for number in batch {
                let entry = pack.frames()[number];
                if let Some(stored) = &stored {
                    let mut data = last.take().map(|(_, _, data)| data).unwrap_or_default();
                    data.clear();
                    let from = (entry.at - base) as usize;
                    entry
                        .unpack(&stored[from..from + entry.stored as usize], framer.as_mut(), &mut data)
                        .map_err(|error| error.on(pack.key()))?;
                    *last = Some((extent.pack, number, data));
                }
                let data = last.as_ref().map_or(&[][..], |(_, _, data)| data);
                for bytes in data.chunks_exact(PAGE).skip(first as usize) {
                    if page == end {
                        break;
                    }
                    each(page, bytes)?;
                    page += 1;
                }
                first = 0;
                frame = number + 1;
            }
        }
        Ok(())
    }

    /// The frames from `frame` on that hold `pages` pages from page `first`, or as many as one read takes.
    fn batch(
        &self,
        pack: &PackReader,
        frame: usize,
        first: u32,
        pages: u32,
    ) -> Result<std::ops::Range<usize>> {
        let (mut end, mut covered, mut stored) = (frame, 0u64, 0u64);
        let wanted = u64::from(first) + u64::from(pages);
        while covered < wanted {
            let entry = pack.frames().get(end).ok_or_else(|| {
                Error::damaged("a manifest names a frame that the pack does not have").on(pack.key())
            })?;
            if end > frame && stored + u64::from(entry.stored) > READ {
                break;
            }
            covered += u64::from(entry.pages());
            stored += u64::from(entry.stored);
            end += 1;
        }
        Ok(frame..end)
    }
}
