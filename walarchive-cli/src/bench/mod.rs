//! Which codec? Measured on files of one's own.

mod advice;
mod meaning;
mod measure;
mod memory;
mod plot;
mod rate;
mod report;
mod sample;
mod scale;

use std::path::Path;
use std::thread;

use walarchive_core::cipher::age::{AgeCipher, Identity};
use walarchive_core::cipher::{Cipher, Plain};
use walarchive_core::codec::{CodecId, CodecSpec};
use walarchive_core::{Error, Kind, Result};

use self::measure::{Effort, Measured, measure};
use self::report::{Report, Row};
use self::sample::Sample;
use crate::args::{BenchArgs, Way};
use crate::output::{bytes, many};
use crate::run::Context;

/// What is measured when nothing is said.
const CHOICE: [&str; 8] = ["none", "lz4:1", "zstd:1", "zstd:3", "zstd:6", "zstd:12", "gzip:6", "xz:6"];

/// `bench`
pub(crate) fn bench(context: &Context, args: &BenchArgs) -> Result<u8> {
    if let (Some(way), [codec, ..]) = (args.memory_of, args.codec.as_slice()) {
        return memory::measure(context, *codec, way);
    }
    if let Some(svg) = &args.svg {
        expect_directory(svg)?;
    }
    let codecs = codecs(args)?;
    let sample = Sample::read(&args.files, args.max_bytes)?;
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let effort = Effort { seconds: args.seconds, threads: args.threads.map_or_else(cores, usize::from) };
    announce(context, &sample, &codecs, effort);
    let wal_rate = args.wal_rate.or_else(|| measured_rate(context, args));
    let rows = measure_all(context, &sample, &codecs, effort)?;
    let report = Report { sample: &sample, rows, threads: effort.threads, wal_rate };
    if let Some(svg) = &args.svg {
        walarchive_core::write_file(svg, 0o644, drawing(&report).as_bytes())?;
    }
    context.output.result(&report.document(), || [report.text(), advice::text(&report)].join("\n\n"))?;
    Ok(0)
}

/// How much WAL is written, as the files themselves tell.
fn measured_rate(context: &Context, args: &BenchArgs) -> Option<u64> {
    let (rate, over) = rate::of(&args.files)?;
    context.output.info(&format!(
        "these segments were written in {} s, as their times tell: {}/s of WAL; --wal-rate says something else",
        over.as_secs(),
        bytes(rate)
    ));
    Some(rate)
}

/// What is found out before minutes are spent.
fn expect_directory(file: &Path) -> Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if dir.is_dir() && !file.is_dir() {
        return Ok(());
    }
    let what = if file.is_dir() { "it is a directory" } else { "its directory is not there" };
    Err(Error::new(Kind::Local, format!("cannot write {}: {what}", file.display())).on(file.display()))
}

/// What is to be measured, each once.
fn codecs(args: &BenchArgs) -> Result<Vec<CodecSpec>> {
    let mut codecs = Vec::new();
    if args.all_levels {
        for id in [CodecId::None, CodecId::Lz4, CodecId::Zstd, CodecId::Gzip, CodecId::Xz] {
            let (low, _, high) = id.levels();
            for level in low..=high {
                let name = id.name();
                codecs.push(if id == CodecId::None {
                    name.parse()?
                } else {
                    format!("{name}:{level}").parse()?
                });
            }
        }
    } else if args.codec.is_empty() {
        codecs = CHOICE.into_iter().map(str::parse).collect::<Result<_>>()?;
    }
    for codec in &args.codec {
        if !codecs.contains(codec) {
            codecs.push(*codec);
        }
    }
    Ok(codecs)
}

fn announce(context: &Context, sample: &Sample, codecs: &[CodecSpec], effort: Effort) {
    let read = bytes(sample.bytes());
    if sample.is_cut() {
        let all = sample.files.iter().map(|file| file.bytes).sum();
        context.output.warning(&format!(
            "of {} in {}, the first {read} are measured; --max-bytes sets the limit",
            bytes(all),
            many(sample.files.len() as u64, "file")
        ));
    }
    let measurements = if effort.threads == 1 { 4 } else { 8 };
    let least = effort.seconds * u32::try_from(codecs.len() * measurements).unwrap_or(u32::MAX);
    context.output.info(&format!(
        "measuring {}, with and without encryption, on {read}: {} s, or more for slow ones",
        many(codecs.len() as u64, "codec"),
        least.as_secs().max(1)
    ));
}

fn measure_all(context: &Context, sample: &Sample, codecs: &[CodecSpec], effort: Effort) -> Result<Vec<Row>> {
    let identity = Identity::generate()?;
    let age = AgeCipher::new(vec![identity.recipient()], vec![identity]);
    let mut rows = Vec::new();
    for codec in codecs {
        context.progress.begin(&format!("measuring {codec}"), 0);
        let measured = measure_one(&sample.objects, *codec, &age, effort);
        context.progress.end();
        rows.extend(measured?);
    }
    Ok(rows)
}

/// One codec without and with encryption.
fn measure_one(objects: &[Vec<u8>], codec: CodecSpec, age: &dyn Cipher, effort: Effort) -> Result<[Row; 2]> {
    let plain = measure(objects, codec, &Plain, effort)?;
    let first = objects.first().map_or(&[][..], Vec::as_slice);
    let memory = (memory::needed(codec, Way::In, first), memory::needed(codec, Way::Out, &plain.payload));
    // Plain payloads are what the codec has made, and nothing else: both rows tell of the same.
    let contents = measure::survey(objects, plain.objects.clone(), codec, effort)?;
    let sealed = measure(objects, codec, age, effort)?;
    let row = |cipher: &dyn Cipher, measured: Measured| -> Result<Row> {
        let seal = cipher.seal()?;
        let stored =
            contents.iter().map(|(plain, content)| (*plain, measured.head + seal.sealed_len(*content)));
        let objects = stored.collect();
        let Measured { seal, open, .. } = measured;
        Ok(Row { codec, encrypted: cipher.encrypts(), objects, seal, open, memory })
    };
    Ok([row(&Plain, plain)?, row(age, sealed)?])
}

fn drawing(report: &Report<'_>) -> String {
    let series = [true, false].map(|encrypted| {
        let (rows, points) = report.points(encrypted);
        let labels = rows.iter().map(|row| row.codec.to_string()).collect();
        plot::Series { name: if encrypted { "encrypted (age)" } else { "not encrypted" }, points, labels }
    });
    let title = format!("Compression ratio and speed of {}", bytes(report.sample.bytes()));
    plot::svg(&title, &series, report.wal_rate)
}
