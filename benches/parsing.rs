//! What is parsed: WAL when a segment is pushed (its name, its first page), when a restore looks for its target (every record),
//! histories of timelines; and manifests in memory. Next to copying or digesting the same bytes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::Measurement;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use tokio::runtime::Runtime;
use walarchive_benches::made_up::{Count, id, place, write};
use walarchive_benches::{CpuTime, Data, SEGMENT, samples};
use walarchive_core::archive::{Archive, Keys, ObjectKind, scan};
use walarchive_core::storage::MemoryStorage;
use walarchive_core::wal::records::{ScanEnd, Scanner};
use walarchive_core::wal::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalName, check_segment};

const PAGE: usize = 8192;

/// Promotions in a history; real ones have a handful.
const PROMOTIONS: u32 = 1000;

/// Files of the manifest: a database of some 8 GB.
const FILES: u64 = 10_000;

fn main() {
    let mut criterion = settings(Criterion::default().with_measurement(CpuTime));
    for data in samples() {
        segments(&mut criterion, &data);
        records(&mut criterion, &data);
    }
    histories(&mut criterion);
    criterion.final_summary();
    // A manifest is written by another thread than the one that waits.
    let mut criterion = settings(Criterion::default());
    manifests(&mut criterion);
    criterion.final_summary();
}

fn settings<M: Measurement>(criterion: Criterion<M>) -> Criterion<M> {
    criterion
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// What copying the bytes takes, and what digesting them does.
fn floors<M: Measurement>(group: &mut BenchmarkGroup<'_, M>, bytes: &[u8]) {
    let mut room = vec![0; bytes.len()];
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("copied", |bench| bench.iter(|| black_box(&mut room).copy_from_slice(bytes)));
    group.bench_function("digested", |bench| bench.iter(|| blake3::hash(black_box(bytes))));
}

fn middle(data: &Data) -> (String, SegmentName) {
    let path = &data.segments[data.segments.len() / 2];
    let text = path.file_name().expect("a segment has a name").to_string_lossy().into_owned();
    let name = text.parse().expect("a segment's name");
    (text, name)
}

/// What a push looks at: the name, and the first page.
fn segments(criterion: &mut Criterion<CpuTime>, data: &Data) {
    let (text, name) = middle(data);
    let segment = data.segment();
    let first = &segment[..PAGE];
    let mut group = criterion.benchmark_group(format!("first-page-{}", data.name));
    floors(&mut group, first);
    // Hardly any of these bytes is looked at.
    group.throughput(Throughput::Elements(1));
    group.bench_function("name parsed", |bench| {
        bench.iter(|| black_box(text.as_str()).parse::<WalName>().expect("a name"));
    });
    group.bench_function("checked", |bench| {
        bench.iter(|| check_segment(&name, black_box(first), SEGMENT as u64).expect("a segment"));
    });
    group.finish();
}

/// All records of a segment, their sums proven.
fn records(criterion: &mut Criterion<CpuTime>, data: &Data) {
    let (_, name) = middle(data);
    let segment = data.segment();
    let start = name.start(SegmentSize::DEFAULT).expect("a segment's start");
    let mut group = criterion.benchmark_group(format!("records-{}", data.name));
    floors(&mut group, &segment);
    group.bench_function("scanned", |bench| {
        bench.iter(|| {
            let mut facts = 0_u64;
            let mut scanner = Scanner::new(SegmentSize::DEFAULT);
            let end = scanner.segment(start, black_box(&segment), &mut |_| facts += 1).expect("a segment");
            // Made-up segments have no records.
            assert!(matches!(end, ScanEnd::Whole) || data.name == "synthetic", "{end:?}");
            facts
        });
    });
    group.finish();
}

fn histories(criterion: &mut Criterion<CpuTime>) {
    let lines =
        (1..=PROMOTIONS).map(|line| format!("{line}\t{line:X}/28000000\tno recovery target specified\n"));
    let text: String = lines.collect();
    let timeline = TimelineId::new(PROMOTIONS + 1).expect("a timeline");
    let mut group = criterion.benchmark_group(format!("history-{PROMOTIONS}"));
    floors(&mut group, text.as_bytes());
    group.bench_function("parsed", |bench| {
        bench.iter(|| TimelineHistory::parse(timeline, black_box(text.as_bytes())).expect("a history"));
    });
    group.finish();
}

/// A manifest with zstd:1, not encrypted: `manifests` has the sizes and the memory, this has the parts.
fn manifests(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let archive = written(&runtime);
    let key = place().manifest(&id());
    let decode = || archive.read(&key, ObjectKind::Manifest, u64::MAX, Count(0));
    let (plain, _) = runtime.block_on(decode()).expect("a manifest");
    let mut group = criterion.benchmark_group(format!("manifest-{FILES}"));
    floors(&mut group, &vec![7; plain.0 as usize]);
    // Each into an archive of its own, as nothing is replaced.
    group.bench_function("written", |bench| bench.iter(|| written(&runtime)));
    group.bench_function("decoded", |bench| {
        bench.iter(|| runtime.block_on(decode()).expect("a manifest"));
    });
    group.bench_function("read", |bench| {
        bench.iter(|| runtime.block_on(scan(&archive, &place(), &id(), Count(0))).expect("a manifest"));
    });
    group.finish();
}

fn written(runtime: &Runtime) -> Archive {
    let work = async {
        let storage = Arc::new(MemoryStorage::new());
        Archive::init(storage.as_ref(), false).await?;
        let archive = Archive::open(storage, Keys::default()).await?;
        write(&archive, FILES).await?;
        Ok::<_, walarchive_core::error::Error>(archive)
    };
    runtime.block_on(work).expect("a manifest is written")
}
