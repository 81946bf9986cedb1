//! What an archive is found to hold.

use walarchive_core::archive::{Catalog, ClusterName};
use walarchive_core::error::Kind;
use walarchive_core::storage::Storage;
use walarchive_core::wal::{SegmentName, SegmentSize, TimelineId};

use crate::support::*;

fn segment_name(text: &str) -> SegmentName {
    text.parse().unwrap()
}

#[test]
fn a_cluster_is_found_by_its_name() {
    run(async {
        for bench in Bench::all().await {
            let main = ClusterName::default();
            refused(Catalog::find(&bench.archive, &main).await, Kind::Absent, "nothing yet");
            bench.push("zstd:1", HISTORY, HISTORY_TEXT).await.unwrap();
            bench.store.take_calls();
            assert_eq!(Catalog::find(&bench.archive, &main).await.unwrap().place, place());
            assert_eq!(bench.store.take_calls(), ["list_dirs main"]);
            let other: ClusterName = "main2".parse().unwrap();
            let error = refused(Catalog::find(&bench.archive, &other).await, Kind::Usage, "another name");
            assert!(error.story().contains("main2") && error.story().contains("knows main"), "{error:?}");
            bench.store.create("main/not-a-system/wal/x", vec![]).await.unwrap();
            assert_eq!(Catalog::find(&bench.archive, &main).await.unwrap().place, place());
            bench.store.create("main/42/wal/00000002.history", vec![]).await.unwrap();
            let error = refused(Catalog::find(&bench.archive, &main).await, Kind::Usage, "two clusters");
            assert!(error.story().contains("42") && error.story().contains(&SYSTEM.to_string()), "{error:?}");
        }
    });
}

#[test]
fn wal_is_listed_by_its_names_and_foreign_objects_are_passed_over() {
    run(async {
        for bench in Bench::all().await {
            let wal = bench.catalog().wal().await.unwrap();
            assert!(wal.segments.is_empty() && wal.stored_bytes == 0);
            let partial = format!("{SEGMENT}.partial");
            let backup = format!("{SEGMENT}.00000028.backup");
            bench.push("zstd:1", SEGMENT, &thin_segment(SEGMENT, 1)).await.unwrap();
            bench
                .push("zstd:1", "000000010000000100000000", &thin_segment("000000010000000100000000", 1))
                .await
                .unwrap();
            bench.push("zstd:1", &partial, &thin_segment(SEGMENT, 1)).await.unwrap();
            bench.push("zstd:1", &partial, &thin_segment(SEGMENT, 2)).await.unwrap();
            bench.push("zstd:1", HISTORY, HISTORY_TEXT).await.unwrap();
            bench.push("zstd:1", &backup, b"START WAL LOCATION: x\n").await.unwrap();
            let root = place().wal_prefix();
            for foreign in [
                "00000002/00000000/000000020000000000000125.gz",
                "00000002/00000001/000000020000000000000126",
                "00000001/00000000/000000020000000000000127",
                "000000020000000000000128",
                "00000002/00000003.history",
                "notes",
            ] {
                bench.store.create(&format!("{root}/{foreign}"), vec!["x".into()]).await.unwrap();
            }
            let wal = bench.catalog().wal().await.unwrap();
            let timeline = |number| TimelineId::new(number).unwrap();
            let segments: Vec<_> = wal.segments.iter().map(|(id, names)| (id.get(), names.len())).collect();
            assert_eq!(segments, [(1, 1), (2, 1)]);
            assert!(wal.segments[&timeline(2)].contains(&segment_name(SEGMENT)));
            assert_eq!(wal.partials.len(), 1);
            assert_eq!(wal.histories.iter().copied().collect::<Vec<_>>(), [timeline(2)]);
            assert_eq!(wal.backups, [name(&backup)]);
            assert!(wal.stored_bytes > 0);
            let by_number = wal.by_number(SegmentSize::new(MIB as u64).unwrap());
            assert_eq!(by_number[&timeline(1)].iter().copied().collect::<Vec<_>>(), [0x1000]);
            // 0x123 cannot be the last part of a name where a log file has 256 segments.
            assert!(wal.by_number(SegmentSize::DEFAULT)[&timeline(2)].is_empty());
        }
    });
}

#[test]
fn histories_are_read_back() {
    run(async {
        for bench in Bench::all().await {
            let timeline = |number| TimelineId::new(number).unwrap();
            let catalog = bench.catalog();
            assert!(catalog.history(timeline(1)).await.unwrap().entries.is_empty());
            refused(catalog.history(timeline(2)).await, Kind::Absent, "not stored");
            bench.push("zstd:1", HISTORY, HISTORY_TEXT).await.unwrap();
            let history = catalog.history(timeline(2)).await.unwrap();
            assert_eq!(history.parent().unwrap().end.to_string(), "0/12300028");
        }
    });
}
