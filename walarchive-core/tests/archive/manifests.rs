//! Manifests with many packs and files: what is asked of their beginnings is told from these alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use walarchive_core::archive::{
    BackupId, Facts, FileRecord, Line, ManifestWriter, PackName, PackRecord, Share, read_needs,
};
use walarchive_core::crossing::{Bridge, blocking};
use walarchive_core::error::Kind;
use walarchive_core::storage::Storage;
use walarchive_core::wal::Lsn;

use crate::recorder::Trouble;
use crate::support::*;

const PACKS: u32 = 7000;

fn id(number: u32) -> BackupId {
    BackupId::new(Timestamp::UNIX_EPOCH, number)
}

fn facts(of: &BackupId) -> Facts {
    Facts {
        format: Facts::FORMAT,
        kind_of: "base".into(),
        id: of.to_string(),
        kind: "full".into(),
        base: None,
        cluster: "main".into(),
        system_id: SYSTEM.to_string(),
        pg_major: 17,
        server_version: "17.2".into(),
        control_version: 1700,
        catalog_version: 202_406_281,
        timeline: 1,
        start_lsn: Lsn(1),
        stop_lsn: Lsn(2),
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        segment_size: MIB as u64,
        page_checksums: true,
        data_bytes: 0,
        stored_bytes: 0,
        files: 0,
        damaged_pages: 0,
        tablespaces: vec![],
        databases: Vec::new(),
        from_standby: false,
        labels: BTreeMap::new(),
        created_by: "test".into(),
    }
}

fn pack(by: u32, number: u32) -> PackRecord {
    let digest = blake3::hash(&number.to_le_bytes()).to_hex().to_string();
    let name = PackName { backup: id(by), number };
    PackRecord { name, stored: 1000, index_at: 900, index_len: 48, plain: 8192, digest }
}

fn file(number: u32) -> FileRecord {
    let mode = 0o600;
    let path = format!("base/{number}/{number}").into();
    FileRecord {
        path,
        mode,
        mtime: Timestamp::UNIX_EPOCH,
        size: 0,
        crc32c: number,
        extents: Default::default(),
        damaged: vec![],
    }
}

/// Stores the manifest of backup `of`, whose files are in these packs of backup 1.
async fn store(bench: &Bench, of: u32, packs: std::ops::Range<u32>, files: u32) -> u64 {
    store_by(bench, "zstd:1", of, packs, files).await
}

async fn store_by(
    bench: &Bench,
    spec: &'static str,
    of: u32,
    packs: std::ops::Range<u32>,
    files: u32,
) -> u64 {
    let (archive, bridge) = (bench.archive.clone(), Bridge::current().unwrap());
    let write = move || {
        let codec = codec(spec);
        let mut manifest =
            ManifestWriter::start(&archive, &place(), &id(of), codec.as_ref(), &facts(&id(of)), &bridge)?;
        for number in packs {
            manifest.line(&Line::Pack(pack(1, number)))?;
        }
        manifest.line(&Line::Dir("base".into(), 0o700))?;
        for number in 0..files {
            manifest.line(&Line::File(file(number)))?;
        }
        manifest.finish()
    };
    blocking(write).await.unwrap().stored
}

#[test]
fn packs_are_read_from_the_beginning_alone() {
    run(async {
        for encrypted in [false, true] {
            let bench = Bench::in_memory(encrypted).await;
            let stored = store(&bench, 1, 0..PACKS, 300_000).await;
            let key = place().manifest(&id(1));
            // What is behind them is neither read nor believed.
            let end = (stored / 2) as usize;
            let no_end = move |_: &str, whole: bytes::Bytes| {
                let mut bytes = whole.to_vec();
                bytes[end..].fill(0);
                bytes.into()
            };
            bench.store.set(Trouble::Lies(Box::new(no_end)));
            bench.store.take_calls();
            let needs = read_needs::<Facts>(&bench.archive, &place(), &id(1)).await.unwrap();
            assert_eq!(needs.packs, (0..PACKS).map(|number| (pack(1, number).name, 1000)).collect());
            assert_eq!((needs.facts, needs.manifest_bytes), (facts(&id(1)), stored));
            // Its head, and twice a quarter of a mebibyte.
            assert_eq!(bench.store.take_calls(), vec![format!("get {key}"); 3]);
        }
    });
}

#[test]
fn manifests_that_break_off_among_the_packs_are_damaged() {
    run(async {
        let bench = Bench::in_memory(false).await;
        store(&bench, 1, 0..PACKS, 1).await;
        let key = place().manifest(&id(1));
        let whole = bench.stored(&key).await;
        bench.store.delete(&key).await.unwrap();
        bench.store.create(&key, vec![whole.slice(..whole.len() / 2)]).await.unwrap();
        let census = bench.catalog().census().await.unwrap();
        assert_eq!(census.damaged.len(), 1);
        refused(read_needs::<Facts>(&bench.archive, &place(), &id(1)).await, Kind::Damaged, "cut off");
    });
}

/// Decoders pass over some bits of frames: here these count, too. (In the headers of gzip there is no place for a sum.)
#[test]
fn every_bit_of_a_manifest_that_is_not_encrypted_is_proven() {
    run(async {
        for spec in CODECS.into_iter().filter(|spec| !spec.starts_with("gzip")) {
            let bench = Bench::in_memory(false).await;
            store_by(&bench, spec, 1, 0..3, 30).await;
            let key = place().manifest(&id(1));
            let whole = bench.stored(&key).await;
            bench.archive.prove(&key, None).await.unwrap();
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                bench.store.set(Trouble::Lies(Box::new(move |_, _| flipped.clone().into())));
                refused(bench.archive.prove(&key, None).await, Kind::Damaged, &format!("{spec}: bit {bit}"));
            }
            let cut = whole.slice(..whole.len() - 40);
            bench.store.set(Trouble::Lies(Box::new(move |_, _| cut.clone())));
            refused(
                bench.archive.prove(&key, None).await,
                Kind::Damaged,
                &format!("{spec}: the sum is gone"),
            );
        }
    });
}

#[test]
fn a_census_counts_every_pack_once() {
    run(async {
        for bench in Bench::all().await {
            let one = store(&bench, 1, 0..5, 1).await;
            let two = store(&bench, 2, 3..9, 1).await;
            let census = bench.catalog().census().await.unwrap();
            assert_eq!(census.share(&id(1)), Some(Share { unique: one + 3000, shared: 2000 }));
            assert_eq!(census.share(&id(2)), Some(Share { unique: two + 4000, shared: 2000 }));
            let packs = (7..12).map(|number| (pack(1, number).name, 10)).collect();
            assert_eq!(census.unneeded(&packs), Some(30));
        }
    });
}
