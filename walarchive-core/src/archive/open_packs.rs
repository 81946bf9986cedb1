//! The packs of a backup or a dump, opened, and reads of their frames that are under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinHandle;

use super::{Catalog, FrameEntry, PackReader, PackRecord};
use crate::crossing::Bridge;
use crate::error::{Error, Kind, Result};

/// Packs that are opened at once.
const OPENING: usize = 16;

/// The packs that are to be read, by their numbers in the manifest.
pub(crate) struct OpenPacks {
    open: BTreeMap<u32, Arc<PackReader>>,
    bridge: Bridge,
}

impl OpenPacks {
    /// Opens those of the packs that are `wanted`: proves that each is there, in its length, with its index.
    pub(crate) async fn open(
        catalog: &Catalog,
        records: &[PackRecord],
        wanted: &BTreeSet<u32>,
    ) -> Result<OpenPacks> {
        let open = |number: u32| async move {
            let record = records.get(number as usize).ok_or_else(|| {
                Error::damaged(format!("a file refers to pack {number}, which the manifest does not have"))
            })?;
            let pack = PackReader::open(&catalog.archive, &catalog.place, record);
            pack.await.map(|pack| (number, Arc::new(pack))).map_err(|error| match error.kind() {
                Kind::Absent => {
                    Error::damaged(format!("a pack that the {} needs is missing", catalog.place.noun()))
                        .on(catalog.place.pack(&record.name))
                }
                _ => error,
            })
        };
        let opening: Vec<_> = wanted.iter().copied().map(open).collect();
        let open = futures::stream::iter(opening).buffer_unordered(OPENING).try_collect().await?;
        Ok(OpenPacks { open, bridge: Bridge::current()? })
    }

    /// A pack by its number.
    pub(crate) fn get(&self, number: u32) -> Result<&Arc<PackReader>> {
        self.open.get(&number).ok_or_else(|| Error::bug("a pack was not opened"))
    }

    /// The frames of a pack.
    pub(crate) fn frames(&self, number: u32) -> Result<&[FrameEntry]> {
        self.get(number).map(|pack| pack.frames())
    }
}

/// Reads that were begun, in the order in which their bytes are wanted.
#[derive(Default)]
pub(crate) struct Flight(VecDeque<JoinHandle<Result<Bytes>>>);

impl Flight {
    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Begins to read frames of a pack.
    pub(crate) fn begin(&mut self, packs: &OpenPacks, pack: u32, frames: Range<usize>) -> Result<()> {
        let reader = packs.get(pack)?.clone();
        self.0.push_back(packs.bridge.spawn(async move { reader.read(frames).await }));
        Ok(())
    }

    /// Waits for the bytes of the read that was begun first.
    pub(crate) fn next(&mut self, packs: &OpenPacks) -> Result<Bytes> {
        let first = self.0.pop_front().ok_or_else(|| Error::bug("no read was begun"))?;
        packs.bridge.wait(first).map_err(|error| Error::bug("a read stopped").because(error))?
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
