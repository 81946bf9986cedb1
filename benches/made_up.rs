//! Manifests of made-up backups: every file is a table of a hundred pages that lie in a few pieces, as after increments.

use std::collections::BTreeMap;
use std::path::PathBuf;

use walarchive_core::archive::{
    Archive, BackupId, Extent, Extents, FRAME_PAGES, Facts, FileRecord, Line, ManifestWriter, PackName,
    PackRecord, Place, SystemId, Taker, Visitor,
};
use walarchive_core::codec::CodecSpec;
use walarchive_core::crossing::{Bridge, blocking};
use walarchive_core::error::Result;
use walarchive_core::wal::Lsn;

/// Pages of a file.
pub const PAGES: u32 = 100;

/// Pieces that a file's pages lie in: increments have been made.
const PIECES: u32 = 4;

/// Files whose pages are in one pack: 64 MiB of pages that compress to a quarter.
const FILES_OF_A_PACK: u64 = 320;

/// The packs that so many files are in.
pub fn packs(files: u64) -> u64 {
    files.div_ceil(FILES_OF_A_PACK)
}

/// Writes the manifest of so many files into the archive, as a backup does it.
///
/// # Errors
/// Those of the archive.
pub async fn write(archive: &Archive, files: u64) -> Result<()> {
    let (archive, bridge) = (archive.clone(), Bridge::current()?);
    blocking(move || {
        let codec = CodecSpec::default().build();
        let mut manifest =
            ManifestWriter::start(&archive, &place(), &id(), codec.as_ref(), &facts(files), &bridge)?;
        for number in 0..packs(files) {
            manifest.line(&Line::Pack(pack(number as u32)))?;
        }
        manifest.line(&Line::Dir("base".into(), 0o700))?;
        for number in 0..files {
            manifest.line(&Line::File(file(number)))?;
        }
        manifest.finish().map(drop)
    })
    .await
}

/// Counts files, or bytes.
#[derive(Debug)]
pub struct Count(pub u64);

impl Visitor for Count {
    fn line(&mut self, _: &Facts, _: &[PackRecord], line: Line) -> Result<()> {
        self.0 += u64::from(matches!(line, Line::File(_)));
        Ok(())
    }
}

impl Taker for Count {
    fn take(&mut self, plain: &[u8]) -> Result<()> {
        self.0 += plain.len() as u64;
        Ok(())
    }
}

/// Where the manifest is.
pub fn place() -> Place {
    Place::of_system("main".parse().expect("a name"), SystemId(7))
}

/// The backup that it is of.
pub fn id() -> BackupId {
    BackupId::new(time(), 1)
}

fn time() -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_700_000_000).expect("a time")
}

fn pack(number: u32) -> PackRecord {
    let digest = blake3::hash(&number.to_le_bytes()).to_hex().to_string();
    let name = PackName { backup: id(), number };
    PackRecord {
        name,
        stored: 67_108_864,
        index_at: 67_000_000,
        index_len: 40_000,
        plain: 262_144_000,
        digest,
    }
}

/// A table, in a few pieces that lie in two packs.
fn file(number: u64) -> FileRecord {
    let noise = blake3::hash(&number.to_le_bytes());
    let random = |at: usize| u32::from(noise.as_bytes()[at]);
    let pack = (number / FILES_OF_A_PACK) as u32;
    let mut extents = Extents::default();
    for piece in 0..PIECES {
        let (page, count) = (piece * PAGES / PIECES, PAGES / PIECES);
        let frame = (number % FILES_OF_A_PACK) as u32 * PAGES / FRAME_PAGES + random(piece as usize);
        let pack = if piece == 2 { 0 } else { pack };
        extents.push_part(Extent { page, count, pack, frame, first: random(8) % FRAME_PAGES });
    }
    FileRecord {
        path: PathBuf::from(format!("base/{}/{}", 16_384 + number / 100_000, 20_000 + number)),
        mode: 0o600,
        mtime: time(),
        size: u64::from(PAGES) * 8192,
        crc32c: random(9) << 24 | random(10) << 16 | random(11) << 8 | random(12),
        extents,
        damaged: Vec::new(),
    }
}

fn facts(files: u64) -> Facts {
    Facts {
        format: Facts::FORMAT,
        kind_of: "base".to_owned(),
        id: id().to_string(),
        kind: "full".to_owned(),
        base: None,
        cluster: "main".to_owned(),
        system_id: "7".to_owned(),
        pg_major: 17,
        server_version: "17.2".to_owned(),
        control_version: 1700,
        catalog_version: 202_406_281,
        timeline: 1,
        start_lsn: Lsn(0x0200_0028),
        stop_lsn: Lsn(0x0200_0100),
        started_at: time(),
        finished_at: time(),
        segment_size: 16 << 20,
        page_checksums: true,
        data_bytes: files * u64::from(PAGES) * 8192,
        stored_bytes: packs(files) * 67_108_864,
        files,
        damaged_pages: 0,
        tablespaces: Vec::new(),
        databases: Vec::new(),
        from_standby: false,
        labels: BTreeMap::new(),
        created_by: "bench".to_owned(),
    }
}
