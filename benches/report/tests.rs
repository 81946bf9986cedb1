//! The page has what it was given, and nothing that it was given is taken for markup.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use walarchive_tests::Scratch;

use super::{Report, Table, Who};
use crate::Used;

fn used(wall: u64, cpu: u64) -> Used {
    Used { wall: Duration::from_millis(wall), cpu: Duration::from_millis(cpu), rss: 3 << 20 }
}

fn report(bench: &str) -> Report {
    let mut table = Table::new("push & fetch", "zstd <-1>");
    table.row(Who::Floor, "zstd <-1>", used(100, 40), Some(1_000_000));
    table.noted(Who::Ours, "walarchive", used(50, 60), Some(1_250_000), "\"noted\"");
    table.row(Who::Other, "another", used(250, 10), None);
    let mut report = Report::new(bench);
    report.fact("took part: one's <script>");
    report.add(table);
    report
}

/// The files of the report of one bench.
fn written(report: &Report) -> (Value, String) {
    let scratch = Scratch::new();
    let dir = scratch.join("report");
    report.write_to(&dir);
    let json = fs::read_to_string(dir.join(format!("{}.json", report.bench))).expect("the figures");
    let page = fs::read_to_string(dir.join("index.html")).expect("the page");
    (serde_json::from_str(&json).expect("JSON"), page)
}

#[test]
fn ratios_are_to_the_named_case() {
    let (json, page) = written(&report("one"));
    let rows = &json["tables"][0]["rows"];
    let of = |row: usize| {
        ["wall_ratio", "cpu_ratio", "stored_ratio"]
            .map(|key| rows[row][key].as_f64().map(|ratio| (ratio * 100.0).round()))
    };
    assert_eq!(of(0), [Some(100.0); 3]);
    assert_eq!(of(1), [Some(50.0), Some(150.0), Some(125.0)]);
    assert_eq!(of(2), [Some(250.0), Some(25.0), None]);
    assert!(page.contains("<td>0.50</td>") && page.contains("<td>250.00</td>"), "{page}");
}

#[test]
fn without_the_named_case_there_are_no_ratios() {
    let mut table = Table::new("push", "nobody");
    table.row(Who::Ours, "walarchive", used(50, 60), Some(7));
    let mut report = Report::new("one");
    report.add(table);
    let (json, page) = written(&report);
    assert_eq!(json["tables"][0]["rows"][0]["wall_ratio"], Value::Null);
    assert!(page.contains("0.050 s") && !page.contains("class=\"one\""), "{page}");
}

#[test]
fn stored_bytes_can_be_in_other_units() {
    let mut table = Table::new("increment", "a");
    table.stored_in_units_of(200);
    table.row(Who::Ours, "a", used(1, 1), Some(100));
    assert_eq!(table.json()["rows"][0]["stored_ratio"], Value::from(0.5));
}

#[test]
fn every_row_is_drawn_and_text_is_escaped() {
    let (_, page) = written(&report("one"));
    assert_eq!(page.matches("<rect ").count(), 6, "two bars a row: {page}");
    assert_eq!(page.matches("<tr><td>").count(), 3, "{page}");
    for escaped in ["zstd &lt;-1&gt;", "push &amp; fetch", "&quot;noted&quot;", "one&#39;s &lt;script&gt;"] {
        assert!(page.contains(escaped), "{escaped}: {page}");
    }
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("http"), "{page}");
}

#[test]
fn the_page_has_all_runs_and_a_new_run_replaces_its_own() {
    let scratch = Scratch::new();
    let dir = scratch.join("report");
    for bench in ["two", "one", "two"] {
        report(bench).write_to(&dir);
    }
    let page = fs::read_to_string(dir.join("index.html")).expect("the page");
    assert_eq!(page.matches("<section ").count(), 2, "{page}");
    assert!(page.contains("<h2>one</h2>") && page.contains("<h2>two</h2>"), "{page}");
}
