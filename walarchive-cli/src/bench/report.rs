//! What was measured, as a table with advice, and as JSON.

use serde_json::{Value, json};
use walarchive_core::codec::CodecSpec;

use super::meaning::{self, Point};
use super::measure::Speed;
use super::sample::Sample;
use crate::output::{bytes, many, table};

/// So many columns of the table are names, and all others numbers.
const NAMES: usize = 3;

/// One codec with or without encryption.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) codec: CodecSpec,
    pub(crate) encrypted: bool,
    /// Plain and stored bytes of the objects that there was time for.
    pub(crate) objects: Vec<(u64, u64)>,
    pub(crate) seal: Speed,
    pub(crate) open: Speed,
    /// Of the encoder, and of the decoder; `None` where that cannot be told.
    pub(crate) memory: (Option<u64>, Option<u64>),
}

/// Everything that was found out.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) sample: &'a Sample,
    pub(crate) rows: Vec<Row>,
    pub(crate) threads: usize,
    pub(crate) wal_rate: Option<u64>,
}

impl Report<'_> {
    /// Plain bytes for each stored one, over the whole sample.
    pub(crate) fn ratio(&self, row: &Row) -> f64 {
        let stored = |row: &Row| row.objects.iter().map(|object| object.1).sum::<u64>();
        let longest = self.rows.iter().map(|row| row.objects.len()).max().unwrap_or_default();
        let candidates = self.rows.iter().filter(|other| other.objects.len() == longest);
        let reference = candidates.min_by_key(|other| stored(other));
        meaning::ratio(&row.objects, reference.map_or(&row.objects, |other| &other.objects))
    }

    /// The rows of one cipher, and what each is judged by.
    pub(crate) fn points(&self, encrypted: bool) -> (Vec<&Row>, Vec<Point>) {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.encrypted == encrypted).collect();
        let points =
            rows.iter().map(|row| Point { speed: row.seal.one_core, ratio: self.ratio(row) }).collect();
        (rows, points)
    }

    fn is_estimated(&self, row: &Row) -> bool {
        row.objects.len() < self.sample.objects.len()
    }

    fn is_on_front(&self, row: &Row) -> bool {
        let (rows, points) = self.points(row.encrypted);
        meaning::front(&points).into_iter().any(|nth| std::ptr::eq(rows[nth], row))
    }

    fn segments_per_second(&self, speed: f64) -> f64 {
        speed / self.sample.segment_bytes as f64
    }

    /// Of the encrypted codecs that are as fast as WAL is written the one to take, and the one that stores the least.
    pub(super) fn recommended(&self) -> Option<(&Row, &Row)> {
        let (rows, points) = self.points(true);
        let rate = self.wal_rate? as f64;
        let smallest = meaning::smallest_that_keeps_up(&points, rate)?;
        Some((rows[meaning::choice(&points, rate)?], rows[smallest]))
    }

    /// The one JSON document.
    pub(crate) fn document(&self) -> Value {
        json!({
            "files": self.sample.files, "bytes": self.sample.bytes(), "cut": self.sample.is_cut(),
            "objects": self.sample.objects.len(), "segment_bytes": self.sample.segment_bytes, "threads": self.threads,
            "wal_bytes_per_second": self.wal_rate,
            "puts_per_month": self.wal_rate.map(|rate| meaning::puts_a_month(rate, self.sample.segment_bytes)),
            "results": self.rows.iter().map(|row| self.row_document(row)).collect::<Vec<_>>(),
            "recommended": self.recommended().map(|(best, _)| best.codec.to_string()),
            "smallest": self.recommended().map(|(_, smallest)| smallest.codec.to_string()),
        })
    }

    fn row_document(&self, row: &Row) -> Value {
        let ratio = self.ratio(row);
        let (plain, stored) =
            row.objects.iter().fold((0, 0), |sum, object| (sum.0 + object.0, sum.1 + object.1));
        json!({
            "codec": row.codec.to_string(), "encrypted": row.encrypted, "verified": true,
            "ratio": ratio, "ratio_estimated": self.is_estimated(row),
            "measured_bytes": plain, "stored_bytes": stored,
            "in_bytes_per_second": row.seal.one_core as u64,
            "out_bytes_per_second": row.open.one_core as u64,
            "in_bytes_per_second_all_cores": row.seal.all_cores as u64,
            "out_bytes_per_second_all_cores": row.open.all_cores as u64,
            "in_segments_per_second": self.segments_per_second(row.seal.one_core),
            "encoder_memory_bytes": row.memory.0, "decoder_memory_bytes": row.memory.1,
            "on_front": self.is_on_front(row),
            "gib_per_month": self.wal_rate.map(|rate| meaning::gib_a_month(rate as f64, ratio)),
        })
    }

    /// The table, and what it leaves unsaid.
    pub(crate) fn text(&self) -> String {
        [self.table(), self.legend()].join("\n\n")
    }

    fn table(&self) -> String {
        let (many_in, many_out) = (format!("in x{}", self.threads), format!("out x{}", self.threads));
        let mut head = vec!["codec", "cipher", "front", "ratio", "in MB/s", "out MB/s"];
        if self.threads > 1 {
            head.extend([many_in.as_str(), many_out.as_str()]);
        }
        head.extend(["enc. MiB", "dec. MiB", "segments/s"]);
        if self.wal_rate.is_some() {
            head.extend(["of a core", "GiB/month"]);
        }
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| self.cells(row)).collect();
        let head = head.into_iter().map(str::to_owned).collect();
        let mut lines = [vec![head], rows].concat();
        for column in NAMES..lines[0].len() {
            right_aligned(&mut lines, column);
        }
        let head: Vec<&str> = lines[0].iter().map(String::as_str).collect();
        table(&head, &lines[1..])
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let ratio = self.ratio(row);
        let speed = |speed: f64| format!("{:.*}", usize::from(speed < 100e6), speed / 1e6);
        let memory = |memory: Option<u64>| {
            memory.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1048576.0))
        };
        let mut cells = vec![
            row.codec.to_string(),
            cipher(row.encrypted).to_owned(),
            if self.is_on_front(row) { "*" } else { "" }.to_owned(),
            format!("{}{ratio:.2}", if self.is_estimated(row) { "~" } else { "" }),
            speed(row.seal.one_core),
            speed(row.open.one_core),
        ];
        if self.threads > 1 {
            cells.extend([speed(row.seal.all_cores), speed(row.open.all_cores)]);
        }
        cells.extend([memory(row.memory.0), memory(row.memory.1)]);
        cells.push(format!("{:.1}", self.segments_per_second(row.seal.one_core)));
        if let Some(rate) = self.wal_rate {
            cells.push(share(rate as f64, row.seal.one_core));
            cells.push(format!("{:.1}", meaning::gib_a_month(rate as f64, ratio)));
        }
        cells
    }

    fn legend(&self) -> String {
        let size = self.sample.segment_bytes;
        let mut lines = vec![format!(
            "{} of {} in {}. ratio: plain by stored bytes. in: compressed and sealed as by a push, \
             out: opened and decompressed as by a fetch,\nMB of plain bytes a second on one core{}, without disk and network. \
             segments/s: in, of {} MiB each. * no other with that cipher is both as fast and as small.\n\
             enc., dec.: what one encoder and one decoder hold in memory besides the object.",
            bytes(self.sample.bytes()),
            many(self.sample.files.len() as u64, "file"),
            many(self.sample.objects.len() as u64, "object"),
            if self.threads > 1 { format!(", then on {} threads", self.threads) } else { String::new() },
            size as f64 / 1048576.0,
        )];
        if self.rows.iter().any(|row| self.is_estimated(row)) {
            lines.push(
                "~ there was time for a part of the objects only, and the rest is estimated from what another codec \
                 makes of it; a larger --seconds measures more."
                    .to_owned(),
            );
        }
        lines.join("\n")
    }
}

fn right_aligned(lines: &mut [Vec<String>], column: usize) {
    let width = lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let width = width.unwrap_or_default();
    for cell in lines.iter_mut().filter_map(|line| line.get_mut(column)) {
        *cell = format!("{cell:>width$}");
    }
}

/// The name of a cipher.
pub(crate) fn cipher(encrypted: bool) -> &'static str {
    if encrypted { "age" } else { "none" }
}

/// How much of a core is busy with work that comes at one speed and is done at another.
pub(super) fn share(comes: f64, done: f64) -> String {
    let percent = comes / done * 100.0;
    format!("{percent:.*} %", usize::from(percent < 10.0))
}
