//! The streams of a dump, read back (FORMAT.md §9).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::{
    BackupId, Catalog, DumpFacts, Flight, Line, Manifest, OpenPacks, PackRecord, StreamRecord, Stretch,
    Visitor, scan,
};
use crate::crossing::blocking;
use crate::error::{Error, Result};

/// Frames that are read at one go.
const AT_ONE_GO: usize = 16;
/// Reads that are under way.
const UNDER_WAY: usize = 4;

/// A stream and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its name, length and digest.
    pub record: StreamRecord,
    /// Its bytes, in order.
    pub stretches: Vec<Stretch>,
}

/// All streams of a dump, in the order of its manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams(pub Vec<Stream>);

impl Visitor<DumpFacts> for Streams {
    fn line(&mut self, _: &DumpFacts, _: &[PackRecord], line: Line) -> Result<()> {
        match line {
            Line::Pack(_) => Ok(()),
            Line::Stream(record) => {
                if self.0.iter().any(|stream| stream.record.name == record.name) {
                    return Err(Error::damaged("a manifest names a stream twice"));
                }
                self.0.push(Stream { record, stretches: Vec::new() });
                Ok(())
            }
            Line::Bytes(stretches) => {
                let last = self.0.last_mut();
                let last = last.ok_or_else(|| Error::damaged("a manifest's bytes are of no stream"))?;
                last.stretches.extend(stretches);
                Ok(())
            }
            Line::Dir(..) | Line::File(_) => Err(Error::bug("a dump's manifest has files")),
        }
    }
}

impl Streams {
    /// Proves that the stretches of each stream add up to its length.
    pub fn check(&self) -> Result<()> {
        for stream in &self.0 {
            let sum = stream.stretches.iter().try_fold(0u64, |sum, stretch| sum.checked_add(stretch.len));
            if sum != Some(stream.record.size) {
                let name = &stream.record.name;
                return Err(Error::damaged(format!("the manifest does not say where all of {name} is")));
            }
        }
        Ok(())
    }
}

/// A dump opened for reading: its manifest is proven, its packs are there.
pub struct StreamsReader {
    /// The manifest.
    pub manifest: Manifest<DumpFacts>,
    streams: Streams,
    packs: OpenPacks,
    /// For each pack, where the data of its frames begin.
    starts: BTreeMap<u32, Vec<u64>>,
}

impl StreamsReader {
    /// Reads the manifest and opens the packs.
    pub async fn open(catalog: &Catalog, id: &BackupId) -> Result<StreamsReader> {
        let (manifest, streams) =
            scan::<DumpFacts, _>(&catalog.archive, &catalog.place, id, Streams::default()).await?;
        streams.check().map_err(|error| error.on(catalog.place.manifest(id)))?;
        let of = streams.0.iter().flat_map(|stream| &stream.stretches);
        let wanted: BTreeSet<u32> = of.map(|stretch| stretch.pack).collect();
        let packs = OpenPacks::open(catalog, &manifest.packs, &wanted).await?;
        let mut starts = BTreeMap::new();
        for number in wanted {
            let mut at = 0;
            let begins = packs.frames(number)?.iter().map(|frame| {
                let begin = at;
                at += u64::from(frame.plain);
                begin
            });
            let mut begins: Vec<u64> = begins.collect();
            begins.push(at);
            starts.insert(number, begins);
        }
        Ok(StreamsReader { manifest, streams, packs, starts })
    }

    /// The streams, in order.
    pub fn streams(&self) -> &[Stream] {
        &self.streams.0
    }

    /// Gives a stream's bytes to `sink`, in order, on a thread that may block. They are proven when this returns success,
    /// and each was read from a frame that holds before the sink saw it.
    pub fn read(&self, stream: &Stream, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut digest = blake3::Hasher::new();
        let mut todo = self.fetches(&stream.stretches)?;
        let (mut flight, mut reading) = (Flight::default(), VecDeque::new());
        let mut data = Vec::new();
        loop {
            while flight.len() < UNDER_WAY {
                let Some(fetch) = todo.pop_front() else { break };
                flight.begin(&self.packs, fetch.pack, fetch.frames.clone())?;
                reading.push_back(fetch);
            }
            let Some(fetch) = reading.pop_front() else { break };
            let stored = flight.next(&self.packs)?;
            self.unpack(&fetch, &stored, &mut data)?;
            for slice in fetch.slices {
                let bytes = data.get(slice).ok_or_else(|| Error::bug("a slice is outside of its frames"))?;
                digest.update(bytes);
                sink(bytes)?;
            }
        }
        if digest.finalize().to_hex().as_str() != stream.record.digest {
            return Err(Error::damaged(format!(
                "{} of dump {} does not match its digest",
                stream.record.name, self.manifest.facts.id
            )));
        }
        Ok(())
    }

    fn unpack(&self, fetch: &Fetch, stored: &[u8], data: &mut Vec<u8>) -> Result<()> {
        data.clear();
        let pack = self.packs.get(fetch.pack)?;
        let mut framer = pack.framer()?;
        let mut rest = stored;
        for frame in pack.frames().get(fetch.frames.clone()).unwrap_or_default() {
            let (bytes, behind) = rest
                .split_at_checked(frame.stored as usize)
                .ok_or_else(|| Error::damaged("a pack is shorter than its index says").on(pack.key()))?;
            frame.unpack(bytes, framer.as_mut(), data).map_err(|error| error.on(pack.key()))?;
            rest = behind;
        }
        Ok(())
    }

    /// What is to be read for these stretches: runs of frames, and where in their data the stretches are.
    fn fetches(&self, stretches: &[Stretch]) -> Result<VecDeque<Fetch>> {
        let mut fetches: VecDeque<Fetch> = VecDeque::new();
        for stretch in stretches {
            let starts = self.starts.get(&stretch.pack).ok_or_else(|| Error::bug("a pack was not opened"))?;
            let beyond = || Error::damaged("a manifest names bytes that a pack does not have");
            let (mut at, end) = (stretch.at, stretch.at.checked_add(stretch.len).ok_or_else(beyond)?);
            if starts.last().is_none_or(|last| end > *last) {
                return Err(beyond());
            }
            while at < end {
                // Never before the first: it begins at zero.
                let frame = starts.partition_point(|start| *start <= at).saturating_sub(1);
                let part = end.min(starts.get(frame + 1).copied().unwrap_or(end));
                match fetches.back_mut() {
                    Some(last) if last.takes(stretch.pack, frame) => last.add(starts, frame, at..part),
                    _ => {
                        let mut fetch =
                            Fetch { pack: stretch.pack, frames: frame..frame + 1, slices: Vec::new() };
                        fetch.add(starts, frame, at..part);
                        fetches.push_back(fetch);
                    }
                }
                at = part;
            }
        }
        Ok(fetches)
    }
}

/// A run of frames, and the slices of their data that are wanted, in order.
struct Fetch {
    pack: u32,
    frames: Range<usize>,
    slices: Vec<Range<usize>>,
}

impl Fetch {
    /// Whether a frame is in the run, or may make it longer.
    fn takes(&self, pack: u32, frame: usize) -> bool {
        let grown = self.frames.len() < AT_ONE_GO && frame == self.frames.end;
        pack == self.pack && (self.frames.contains(&frame) || grown)
    }

    fn add(&mut self, starts: &[u64], frame: usize, bytes: Range<u64>) {
        self.frames.end = self.frames.end.max(frame + 1);
        let begin = starts.get(self.frames.start).copied().unwrap_or_default();
        let slice = (bytes.start - begin) as usize..(bytes.end - begin) as usize;
        match self.slices.last_mut() {
            Some(last) if last.end == slice.start => last.end = slice.end,
            _ => self.slices.push(slice),
        }
    }
}

impl Catalog {
    /// Reads a whole dump and forgets it: proves every byte of it.
    pub async fn prove_dump(&self, id: &BackupId) -> Result<Manifest<DumpFacts>> {
        let reader = Arc::new(StreamsReader::open(self, id).await?);
        let proving = reader.clone();
        blocking(move || {
            proving.streams().iter().try_for_each(|stream| proving.read(stream, &mut |_| Ok(())))
        })
        .await?;
        Ok(reader.manifest.clone())
    }
}
