//! Every codec, at a few levels, on WAL as a stream and on data files as frames of 256 KiB. CPU time, not wall time.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, Throughput};
use walarchive_benches::{CpuTime, Data, samples};
use walarchive_core::codec::{Codec, CodecSpec};

/// Codecs, and how much of a segment they get: the slow ones would take minutes.
const CODECS: [(&str, usize); 11] = [
    ("none", 16 << 20),
    ("lz4:1", 16 << 20),
    ("lz4:9", 16 << 20),
    ("zstd:1", 16 << 20),
    ("zstd:3", 16 << 20),
    ("zstd:9", 8 << 20),
    ("zstd:19", 1 << 20),
    ("gzip:1", 8 << 20),
    ("gzip:6", 4 << 20),
    ("xz:0", 4 << 20),
    ("xz:6", 1 << 20),
];

const FRAME: usize = 256 << 10;

/// How the programs hand plain bytes on.
const PIECE: usize = 256 << 10;

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for data in samples() {
        streams(&mut criterion, &data);
        frames(&mut criterion, &data);
    }
    criterion.final_summary();
}

fn codec(name: &str) -> std::sync::Arc<dyn Codec> {
    name.parse::<CodecSpec>().expect("a codec").build()
}

fn ratio(what: &str, plain: usize, stored: usize) {
    println!("{what}: {:.2} times smaller", plain as f64 / stored as f64);
}

fn group<'a>(
    criterion: &'a mut Criterion<CpuTime>,
    name: String,
    plain: usize,
) -> BenchmarkGroup<'a, CpuTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(plain as u64));
    group
}

fn streams(criterion: &mut Criterion<CpuTime>, data: &Data) {
    let segment = data.segment();
    for (name, len) in CODECS {
        let (codec, plain) = (codec(name), &segment[..len.min(segment.len())]);
        let mut stored = Vec::with_capacity(plain.len() * 2);
        let mut group = group(criterion, format!("wal-{}", data.name), plain.len());
        group.bench_function(format!("compress/{name}"), |bench| {
            bench.iter(|| compress(codec.as_ref(), plain, &mut stored));
        });
        compress(codec.as_ref(), plain, &mut stored);
        group.bench_function(format!("decompress/{name}"), |bench| {
            bench.iter(|| decompress(codec.as_ref(), &stored));
        });
        group.finish();
        assert_eq!(decompress(codec.as_ref(), &stored), plain.len());
        ratio(&format!("wal-{} {name}", data.name), plain.len(), stored.len());
    }
}

fn compress(codec: &dyn Codec, plain: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut encoder = codec.encoder().expect("an encoder");
    plain.chunks(PIECE).for_each(|piece| encoder.push(piece, out).expect("compress"));
    encoder.finish(out).expect("compress");
}

fn decompress(codec: &dyn Codec, stored: &[u8]) -> usize {
    let mut len = 0;
    let mut sink = |plain: &[u8]| {
        len += black_box(plain).len();
        Ok(())
    };
    let mut decoder = codec.decoder().expect("a decoder");
    stored.chunks(PIECE).for_each(|piece| decoder.push(piece, &mut sink).expect("decompress"));
    decoder.finish(&mut sink).expect("decompress");
    len
}

fn frames(criterion: &mut Criterion<CpuTime>, data: &Data) {
    let pages = data.pages();
    for (name, len) in CODECS {
        let plain = &pages[..len.min(pages.len())];
        let mut framer = codec(name).framer().expect("a framer");
        let mut stored = Vec::new();
        let mut group = group(criterion, format!("pages-{}", data.name), plain.len());
        group.bench_function(format!("pack/{name}"), |bench| {
            bench.iter(|| {
                for frame in plain.chunks(FRAME) {
                    stored.clear();
                    framer.pack(frame, &mut stored).expect("pack");
                }
            });
        });
        let packed: Vec<(Vec<u8>, usize)> = plain
            .chunks(FRAME)
            .map(|frame| {
                let mut packed = Vec::new();
                framer.pack(frame, &mut packed).expect("pack");
                (packed, frame.len())
            })
            .collect();
        let mut out = Vec::new();
        group.bench_function(format!("unpack/{name}"), |bench| {
            bench.iter(|| {
                for (packed, len) in &packed {
                    out.clear();
                    framer.unpack(packed, *len, &mut out).expect("unpack");
                }
            });
        });
        group.finish();
        let stored = packed.iter().map(|(packed, _)| packed.len()).sum();
        ratio(&format!("pages-{} {name}", data.name), plain.len(), stored);
    }
}
