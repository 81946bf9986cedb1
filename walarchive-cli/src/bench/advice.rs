//! What to choose.

use super::meaning;
use super::report::{Report, Row, share};
use crate::output::bytes;

/// The encrypted codecs that are worth a choice; where it is known how much WAL is written, the one to take.
pub(super) fn text(report: &Report<'_>) -> String {
    let (rows, points) = report.points(true);
    let front: Vec<&Row> = meaning::front(&points).into_iter().map(|nth| rows[nth]).collect();
    let (Some(fastest), Some(rate)) = (front.first(), report.wal_rate) else {
        let names: Vec<String> =
            front.iter().map(|row| format!("{} ({:.2})", row.codec, report.ratio(row))).collect();
        return format!(
            "Worth a choice, encrypted, from the fastest to the smallest: {}. --wal-rate 10MiB/s, or whatever your cluster writes, \
             tells which of them keep up.",
            names.join(", ")
        );
    };
    let written = format!("{}/s of WAL", bytes(rate));
    let Some((best, smallest)) = report.recommended() else {
        return format!(
            "No codec keeps up with {written} on one core, and PostgreSQL archives one segment at a time: the fastest, {}, takes {}/s.",
            fastest.codec,
            bytes(fastest.seal.one_core as u64)
        );
    };
    let mut text = format!(
        "Recommended for {written}, encrypted: {}, the fastest of those that keep up on one core and store at most 5 % more than the smallest of them.\n\
         {:.1} GiB a month in {} PUT requests. It {}.",
        best.codec,
        meaning::gib_a_month(rate as f64, report.ratio(best)),
        meaning::puts_a_month(rate, report.sample.segment_bytes),
        work(best, rate),
    );
    if smallest.codec != best.codec {
        let less = (1.0 - report.ratio(best) / report.ratio(smallest)) * 100.0;
        let (codec, work) = (smallest.codec, work(smallest, rate));
        text.push_str(&format!("\nThe smallest: {codec} stores {less:.1} % less. It {work}."));
    }
    if let Some(next) = front.iter().rev().find(|row| row.seal.one_core >= 4.0 * best.seal.one_core) {
        let more = (report.ratio(best) / report.ratio(next) - 1.0) * 100.0;
        let (codec, work) = (next.codec, work(next, rate));
        text.push_str(&format!("\nWith less work: {codec} stores {more:.0} % more. It {work}."));
    }
    text
}

/// What a codec costs where so much WAL is written.
fn work(row: &Row, rate: u64) -> String {
    let behind = meaning::catch_up(rate as f64, row.seal.one_core, 60.0);
    format!(
        "takes {} of a core, {}, and is read back at {}/s",
        share(rate as f64, row.seal.one_core),
        match behind {
            Some(minutes) if minutes < 600.0 => {
                format!("needs {:.0} min to catch up after an hour without the store", minutes.max(1.0))
            }
            _ => "hardly ever catches up when the store was away".to_owned(),
        },
        bytes(row.open.one_core as u64),
    )
}
