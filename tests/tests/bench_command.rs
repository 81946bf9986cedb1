//! `walarchive bench`: every field, a drawing that is XML, and refusals. How fast anything is, is nobody's to assert.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use walarchive_tests::sample::{SEGMENT_LEN, segment, segment_name};
use walarchive_tests::{Options, Output, Product, Scratch};

/// Without an archive; what is set of one must not matter.
fn fixture() -> (Scratch, Product) {
    let scratch = Scratch::new();
    let options = Options {
        encrypted: false,
        init: false,
        archive: Some("file:///nowhere/at/all".to_owned()),
        ..Options::default()
    };
    let product = Product::with(&scratch, options);
    (scratch, product)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn text() -> String {
    (0..40_000).map(|n| format!("{n}\tcustomer {}\tdelivered\n", n % 97)).collect()
}

fn result<'a>(document: &'a Value, codec: &str, encrypted: bool) -> &'a Value {
    let mut results = document["results"].as_array().unwrap().iter();
    let found = results.find(|result| result["codec"] == codec && result["encrypted"] == encrypted);
    found.unwrap_or_else(|| panic!("no {codec} in {document:#}"))
}

const QUICK: [&str; 5] = ["bench", "--seconds", "0.01", "--threads", "2"];

#[test]
fn every_field_is_there_and_ratios_are_plausible() {
    let (scratch, product) = fixture();
    let wal = scratch.write(segment_name(1, 1), segment(1, 1, 7));
    let log = scratch.write("rows.txt", text());
    let svg = scratch.join("plot.svg");
    let args = ["--wal-rate", "1MiB/s", "--svg", path(&svg), path(&wal), path(&log)];
    let document = product.json(&[&QUICK[..], &args].concat());
    let all = (SEGMENT_LEN + text().len()) as u64;
    assert_eq!((&document["bytes"], &document["cut"]), (&all.into(), &false.into()), "{document:#}");
    assert_eq!((&document["objects"], &document["threads"]), (&2.into(), &2.into()), "{document:#}");
    assert_eq!(document["segment_bytes"], SEGMENT_LEN as u64);
    assert_eq!(document["files"][0]["read_bytes"], SEGMENT_LEN as u64);
    assert_eq!(document["puts_per_month"], 30 * 24 * 3600);
    for result in document["results"].as_array().unwrap() {
        let number = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("no {name} in {result:#}"));
        for speed in ["in_bytes_per_second", "out_bytes_per_second"] {
            assert!(number(speed) > 0.0 && number(&format!("{speed}_all_cores")) > 0.0, "{result:#}");
        }
        assert!(number("in_segments_per_second") > 0.0 && number("stored_bytes") > 0.0, "{result:#}");
        assert!(number("measured_bytes") > 0.0 && number("measured_bytes") <= all as f64, "{result:#}");
        let month = 2531.25 / number("ratio");
        assert!((number("gib_per_month") - month).abs() < 0.01, "{result:#}");
        assert!(result["verified"] == true && result["on_front"].is_boolean(), "{result:#}");
        assert!(result["ratio_estimated"].is_boolean(), "{result:#}");
        for memory in ["encoder_memory_bytes", "decoder_memory_bytes"] {
            assert!(result[memory].is_null() || number(memory) < 1e9, "{result:#}");
        }
    }
    let ratio = |codec, encrypted| result(&document, codec, encrypted)["ratio"].as_f64().unwrap();
    assert!((0.95..1.0).contains(&ratio("none", false)), "{document:#}");
    assert!(ratio("zstd:3", false) > 1.5 && ratio("xz:6", true) > 1.5, "{document:#}");
    assert!(ratio("zstd:3", true) < ratio("zstd:3", false), "{document:#}");
    assert!(document["results"].as_array().unwrap().iter().any(|result| result["on_front"] == true));
    for choice in ["recommended", "smallest"] {
        let codec = document[choice].as_str().unwrap();
        assert_eq!(result(&document, codec, true)["on_front"], true, "{document:#}");
    }
    is_xml(&svg);
}

fn is_xml(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("zstd:3") && text.contains("polyline"), "{text}");
    let parse = "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])";
    match Command::new("python3").args(["-c", parse]).arg(file).output() {
        Ok(parsed) => assert!(parsed.status.success(), "{parsed:?}\n{text}"),
        Err(error) => eprintln!("\nSKIPPED: the drawing is not parsed, there is no python3: {error}\n"),
    }
}

#[test]
fn codecs_limits_and_the_table() {
    let (scratch, product) = fixture();
    let log = scratch.write("rows.txt", text());
    let args =
        ["--codec", "zstd:2", "--codec", "lz4", "--codec", "zstd:2", "--max-bytes", "100k", path(&log)];
    let args = [&QUICK[..], &args].concat();
    let document = product.json(&args);
    assert_eq!((&document["cut"], &document["bytes"]), (&true.into(), &102_400.into()), "{document:#}");
    assert_eq!(document["results"].as_array().unwrap().len(), 4, "{document:#}");
    for absent in ["recommended", "puts_per_month", "wal_bytes_per_second"] {
        assert!(document[absent].is_null(), "{document:#}");
    }
    let output = product.run(&args);
    assert_eq!(output.code, Some(0), "{output:?}");
    for word in ["codec", "ratio", "zstd:2", "lz4:1", "age", "none", "x2", "Worth a choice", "--wal-rate"] {
        assert!(output.stdout.contains(word), "no {word} in {}", output.stdout);
    }
    assert!(output.stderr.contains("--max-bytes"), "{output:?}");
    let hopeless = product.ok(&[&args[..], &["--wal-rate", "900GiB/s"]].concat());
    assert!(hopeless.contains("No codec keeps up"), "{hopeless}");
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "no {word} in {output:?}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (scratch, product) = fixture();
    let log = scratch.write("rows.txt", text());
    let empty = scratch.write("empty", "");
    let missing = scratch.join("missing");
    let run = |args: &[&str]| product.run(&[&QUICK[..], args].concat());
    refused(&run(&[path(&missing)]), 6, &["cannot read", "missing"]);
    refused(&run(&[path(&empty)]), 2, &["empty"]);
    refused(&run(&[path(scratch.path())]), 6, &["not a file"]);
    refused(&run(&[path(&log), "--codec", "nonsense"]), 2, &["nonsense", "zstd:1"]);
    refused(&run(&[path(&log), "--svg", path(&missing.join("plot.svg"))]), 6, &["cannot write", "plot.svg"]);
    refused(&run(&[path(&log), "--archive", "file:///srv/archive"]), 2, &["uses no archive"]);
    refused(&run(&[path(&log), "--wal-rate", "fast"]), 2, &["10MiB/s"]);
    refused(&run(&[]), 2, &["FILE"]);
}
