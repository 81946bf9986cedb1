//! `global/pg_control`: the cluster's identity and the state of its log.

use crate::error::{Error, Result};
use crate::wal::{Lsn, SegmentSize, TimelineId};

/// What the server was doing when it last wrote the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Starting up.
    Startup,
    /// Shut down cleanly.
    ShutDown,
    /// A standby, shut down cleanly.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    CrashRecovery,
    /// Recovering from an archive, or a running standby.
    ArchiveRecovery,
    /// Running.
    Production,
    /// A number that this program does not know.
    Unknown(u32),
}

impl ClusterState {
    fn from_number(number: u32) -> ClusterState {
        match number {
            0 => ClusterState::Startup,
            1 => ClusterState::ShutDown,
            2 => ClusterState::ShutDownInRecovery,
            3 => ClusterState::ShuttingDown,
            4 => ClusterState::CrashRecovery,
            5 => ClusterState::ArchiveRecovery,
            6 => ClusterState::Production,
            other => ClusterState::Unknown(other),
        }
    }

    /// Whether no server is running on the files and all of them are complete.
    #[must_use]
    pub fn is_shut_down(self) -> bool {
        matches!(self, ClusterState::ShutDown | ClusterState::ShutDownInRecovery)
    }
}

/// The fields of `pg_control` that backups and restores need, for PostgreSQL 13 to 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// The system identifier of the cluster.
    pub system_id: u64,
    /// The version of the file's format.
    pub pg_control_version: u32,
    /// The version of the system catalogs; differs between all major versions.
    pub catalog_version: u32,
    /// What the server was doing.
    pub state: ClusterState,
    /// When the file was last written, in seconds since the Unix epoch.
    pub time: i64,
    /// The position of the last checkpoint's record.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint starts.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: TimelineId,
    /// The timeline before the checkpoint; differs only for one at the end of recovery.
    pub prev_timeline: u32,
    /// The first transaction number not yet used, with its epoch in the high half.
    pub next_xid: u64,
    /// When that checkpoint began, in seconds since the Unix epoch.
    pub checkpoint_time: i64,
    /// Recovery must reach this position before the cluster is consistent; 0/0 when it is.
    pub min_recovery_point: Lsn,
    /// The timeline of that position; 0 when there is none.
    pub min_recovery_point_timeline: u32,
    /// Where the backup from which the cluster is recovering starts; 0/0 when there is none.
    pub backup_start_point: Lsn,
    /// Where the backup taken from a standby ends; 0/0 when there is none.
    pub backup_end_point: Lsn,
    /// Whether recovery must see the end of the backup in the log.
    pub backup_end_required: bool,
    /// The setting `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// Bytes of a data page.
    pub block_size: u32,
    /// Pages in one file of a relation.
    pub relseg_size: u32,
    /// Bytes of a WAL page.
    pub wal_block_size: u32,
    /// Bytes of a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// 0 when pages have no checksums.
    pub data_checksum_version: u32,
}

/// Where the checksum may stand: in PostgreSQL 13 to 17, and in 18.
const CRC_AT: [usize; 2] = [288, 292];
/// Where a known floating point number shows the byte order and layout.
const FLOAT_AT: usize = 208;
const FLOAT: u64 = 1_234_567.0_f64.to_bits();

/// The catalog version of each supported major version.
const CATALOGS: [(u16, u32); 6] = [
    (13, 202_007_201),
    (14, 202_107_181),
    (15, 202_209_061),
    (16, 202_307_071),
    (17, 202_406_281),
    (18, 202_506_291),
];

/// The file with its checksum verified; fields lie before the checksum.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn raw<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let raw = self.0.get(at..).and_then(|rest| rest.first_chunk::<N>());
        raw.copied().ok_or_else(|| Error::bug(format!("a field of pg_control at {at} lies outside the file")))
    }

    fn u32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.raw(at)?))
    }

    fn i64(&self, at: usize) -> Result<i64> {
        Ok(i64::from_le_bytes(self.raw(at)?))
    }

    fn u64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.raw(at)?))
    }

    fn lsn(&self, at: usize) -> Result<Lsn> {
        Ok(Lsn(self.u64(at)?))
    }
}

impl ControlFile {
    /// Reads the file's bytes and checks its checksum.
    ///
    /// A running server writes the file in place: read it again when the checksum does not hold.
    ///
    /// # Errors
    /// [`Damaged`](crate::error::Kind::Damaged) when the file is too short, was written by an unsupported version or
    /// architecture, or its checksum does not hold.
    pub fn parse(bytes: &[u8]) -> Result<ControlFile> {
        let fields = verified(bytes)?;
        let impossible = |error: Error| Error::damaged(format!("pg_control is wrong: {error}"));
        Ok(ControlFile {
            system_id: fields.u64(0)?,
            pg_control_version: fields.u32(8)?,
            catalog_version: fields.u32(12)?,
            state: ClusterState::from_number(fields.u32(16)?),
            time: fields.i64(24)?,
            checkpoint: fields.lsn(32)?,
            redo: fields.lsn(40)?,
            timeline: TimelineId::new(fields.u32(48)?).map_err(impossible)?,
            prev_timeline: fields.u32(52)?,
            next_xid: fields.u64(64)?,
            checkpoint_time: fields.i64(104)?,
            min_recovery_point: fields.lsn(136)?,
            min_recovery_point_timeline: fields.u32(144)?,
            backup_start_point: fields.lsn(152)?,
            backup_end_point: fields.lsn(160)?,
            backup_end_required: fields.raw::<1>(168)? != [0],
            wal_level: i32::from_le_bytes(fields.raw(172)?),
            block_size: fields.u32(216)?,
            relseg_size: fields.u32(220)?,
            wal_block_size: fields.u32(224)?,
            wal_segment_size: SegmentSize::new(u64::from(fields.u32(228)?)).map_err(impossible)?,
            data_checksum_version: fields.u32(252)?,
        })
    }

    /// The major version of the server; `None` for one that this program does not know.
    #[must_use]
    pub fn pg_major(&self) -> Option<u16> {
        CATALOGS.iter().find(|(_, catalog)| *catalog == self.catalog_version).map(|(major, _)| *major)
    }
}

fn verified(bytes: &[u8]) -> Result<Fields<'_>> {
    let float = bytes.get(FLOAT_AT..).and_then(|rest| rest.first_chunk::<8>()).copied();
    let Some(float) = float else {
        return Err(Error::damaged(format!("pg_control has {} bytes, expected 8192", bytes.len())));
    };
    if u64::from_be_bytes(float) == FLOAT {
        return Err(Error::damaged("pg_control was written on a big-endian machine, which is not supported"));
    }
    let sum_holds = |at: usize| {
        let stored = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        stored.is_some_and(|raw| u32::from_le_bytes(*raw) == crc32c::crc32c(&bytes[..at]))
    };
    let known_layout = u64::from_le_bytes(float) == FLOAT;
    if known_layout && CRC_AT.into_iter().any(sum_holds) {
        return Ok(Fields(bytes));
    }
    let version =
        bytes.get(8..).and_then(|rest| rest.first_chunk::<4>()).map_or(0, |raw| u32::from_le_bytes(*raw));
    let hint =
        "read the file again if the server is running; supported is PostgreSQL 13 to 18 on 64-bit machines";
    let what = if known_layout { "its checksum does not hold" } else { "its layout is not known" };
    Err(Error::damaged(format!(
        "pg_control (format {version}, {} bytes) cannot be used: {what}",
        bytes.len()
    ))
    .hint(hint))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn file(catalog: u32, crc_at: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; 8192];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &7_123_456_789_012_345_678u64.to_le_bytes());
        put(8, &1300u32.to_le_bytes());
        put(12, &catalog.to_le_bytes());
        put(16, &6u32.to_le_bytes());
        put(32, &0x1_0000_0060u64.to_le_bytes());
        put(40, &0x1_0000_0028u64.to_le_bytes());
        put(48, &3u32.to_le_bytes());
        put(104, &1_700_000_000i64.to_le_bytes());
        put(136, &0x99u64.to_le_bytes());
        put(168, &[1]);
        put(208, &1_234_567.0f64.to_le_bytes());
        put(216, &8192u32.to_le_bytes());
        put(220, &131_072u32.to_le_bytes());
        put(224, &8192u32.to_le_bytes());
        put(228, &(64u32 << 20).to_le_bytes());
        put(252, &1u32.to_le_bytes());
        put(256, &[5; 32]);
        seal(&mut bytes, crc_at);
        bytes
    }

    fn seal(bytes: &mut [u8], at: usize) {
        let crc = crc32c::crc32c(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn both_places_of_the_checksum_are_known() {
        for (catalog, crc_at, major) in
            [(202_209_061, 288, Some(15)), (202_506_291, 292, Some(18)), (1, 288, None)]
        {
            let control = ControlFile::parse(&file(catalog, crc_at)).unwrap();
            assert_eq!(control.pg_major(), major);
            assert_eq!(control.system_id, 7_123_456_789_012_345_678);
            assert_eq!(control.state, ClusterState::Production);
            assert_eq!((control.checkpoint, control.redo), (Lsn(0x1_0000_0060), Lsn(0x1_0000_0028)));
            assert_eq!((control.timeline.get(), control.checkpoint_time), (3, 1_700_000_000));
            assert_eq!((control.min_recovery_point, control.backup_end_required), (Lsn(0x99), true));
            assert_eq!((control.relseg_size, control.wal_segment_size.bytes()), (131_072, 64 << 20));
            assert_eq!(control.data_checksum_version, 1);
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        let good = file(202_209_061, 288);
        let mut torn = good.clone();
        torn[50] ^= 1;
        let mut moved = good.clone();
        moved.copy_within(208..216, 216);
        moved[208..216].fill(0);
        let mut swapped = good.clone();
        swapped[208..216].reverse();
        let mut zero = good.clone();
        zero[48] = 0;
        seal(&mut zero, 288);
        let mut odd = good.clone();
        odd[228] = 1;
        seal(&mut odd, 288);
        for (bytes, says) in [
            (&torn[..], "checksum"),
            (&moved, "layout"),
            (&swapped, "big-endian"),
            (&zero, "timeline 0"),
            (&odd, "67108865"),
            (&good[..100], "100 bytes"),
            (&good[..290], "checksum"),
            (&[], "0 bytes"),
        ] {
            let error = ControlFile::parse(bytes).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged);
            assert!(error.story().contains(says), "{}", error.story());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(ControlFile::parse(&bytes).is_err());
        }

        #[test]
        fn any_content_with_a_right_checksum_is_read_or_refused(at in 0usize..288, value: u8) {
            let mut bytes = file(202_209_061, 288);
            bytes[at] = value;
            seal(&mut bytes, 288);
            let _ = ControlFile::parse(&bytes);
        }

        #[test]
        fn every_torn_byte_is_found(at in 0usize..292, by in 1u8..) {
            let mut bytes = file(202_209_061, 288);
            bytes[at] ^= by;
            prop_assert!(ControlFile::parse(&bytes).is_err());
        }
    }
}
