//! The C interface: its header and symbols, and programs in C under AddressSanitizer and Valgrind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_tests::sample::{SYSTEM_ID, segment, segment_name};
use walarchive_tests::{Options, Output, Product, Scratch, library, require};

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("walarchive-ffi")
}

#[test]
fn the_header_is_what_the_code_says() {
    let config = cbindgen::Config::from_file(package().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config).with_src(package().join("src/lib.rs"));
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let header = package().join("include/walarchive.h");
    if std::env::var_os("WALARCHIVE_BLESS").is_some() {
        fs::write(&header, &made).unwrap();
    }
    assert_eq!(fs::read_to_string(header).unwrap(), made, "WALARCHIVE_BLESS=1 writes it anew");
}

#[test]
fn the_symbols_are_those_that_were_promised() {
    let output =
        Command::new("nm").args(["-D", "--defined-only"]).arg(library("libwalarchive.so")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next_back()).collect();
    found.sort_unstable();
    // A dependency has C functions of its own, which nobody is promised.
    found.retain(|name| !name.starts_with("crc_fast_"));
    let promised = fs::read_to_string(package().join("symbols.txt")).unwrap();
    assert_eq!(found, promised.lines().collect::<Vec<_>>());
}

/// The name by which programs find the shared library: with its ABI.
fn soname() -> String {
    let output = Command::new("readelf").arg("-d").arg(library("libwalarchive.so")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let name = text.lines().find_map(|line| line.split("soname: [").nth(1)?.split(']').next());
    let name = name.unwrap_or_else(|| panic!("no soname: {text}"));
    let code = fs::read_to_string(package().join("src/lib.rs")).unwrap();
    let abi = name.strip_prefix("libwalarchive.so.").unwrap();
    assert!(code.contains(&format!("const ABI: u32 = {abi};")), "{name}");
    name.to_owned()
}

/// A program in C, compiled with what is asked for besides, and linked with the library.
fn compiled(scratch: &Scratch, source: &Path, options: &[&str], library: &Path) -> PathBuf {
    let program = scratch.join(source.file_stem().unwrap());
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-pthread"]);
    command
        .args(options)
        .arg("-I")
        .arg(package().join("include"))
        .arg("-o")
        .arg(&program)
        .arg(source)
        .arg(library);
    let output = Output::of(&command.args(["-lutil", "-lrt", "-lm", "-ldl"]).output().unwrap());
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:#?}");
    program
}

/// The settings of a product's archive, as arguments, and the segments that the programs ask for.
fn settings(scratch: &Scratch, product: &Product) -> Vec<String> {
    for number in 1..=16 {
        scratch.write(segment_name(1, number), segment(1, number, number.into()));
    }
    let settings = product.env().iter().filter(|(name, _)| name.starts_with("WALARCHIVE_"));
    let mut settings: Vec<String> = settings.map(|(name, value)| format!("{name}={value}")).collect();
    settings.push(format!("WALARCHIVE_SYSTEM_ID={SYSTEM_ID}"));
    settings
}

fn run(scratch: &Scratch, command: &[&str], settings: &[String]) -> Output {
    let mut run = scratch.command(command[0]);
    run.args(&command[1..]).args(settings).current_dir(scratch.path());
    Output::of(&run.output().unwrap())
}

#[test]
fn the_example_brings_a_segment_back() {
    let scratch = Scratch::new();
    let product = Product::with(&scratch, Options { init: false, encrypted: false, ..Options::default() });
    let settings = settings(&scratch, &product);
    let sanitized = ["-fsanitize=address,undefined"];
    let source = package().join("examples/embed.c");
    let program = compiled(&scratch, &source, &sanitized, &library("libwalarchive.a"));
    let (program, name) = (program.to_str().unwrap(), segment_name(1, 3));
    let run = run(&scratch, &[program, &settings[0], &name, "copy"], &settings[1..]);
    assert!(run.code == Some(0) && run.stderr.is_empty() && run.stdout.contains(&name), "{run:#?}");
    assert!(fs::read(scratch.join("copy")).unwrap() == segment(1, 3, 3));
    let absent =
        Output::of(&scratch.command(program).args([&settings[0], "nonsense", "copy"]).output().unwrap());
    assert!(absent.code == Some(2) && absent.stderr.contains("kind usage"), "{absent:#?}");
}

#[test]
fn stores_are_written_in_c_and_buffers_sealed() {
    let scratch = Scratch::new();
    let product = Product::with(&scratch, Options { init: false, ..Options::default() });
    let settings = settings(&scratch, &product);
    // The list in memory is the archive, whatever the settings say of one.
    let settings: Vec<String> =
        settings.into_iter().filter(|setting| !setting.starts_with("WALARCHIVE_ARCHIVE=")).collect();
    let sanitized = ["-fsanitize=address,undefined"];
    let source = package().join("examples/own_store.c");
    let program = compiled(&scratch, &source, &sanitized, &library("libwalarchive.a"));
    let name = segment_name(1, 3);
    let run_it = run(&scratch, &[program.to_str().unwrap(), &name, "copy"], &settings);
    assert!(run_it.code == Some(0) && run_it.stderr.is_empty(), "{run_it:#?}");
    let lines: Vec<&str> = run_it.stdout.lines().collect();
    let [status, text, end] = lines[..] else { panic!("{run_it:#?}") };
    assert!(status.contains("\"timelines\":[{") && status.contains("\"problems\":["), "{status}");
    assert_eq!([text, end], ["what nobody else may read", "released with 2 objects"]);
    assert!(fs::read(scratch.join("copy")).unwrap() == segment(1, 3, 3));

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/stores.c");
    let program = compiled(&scratch, &source, &sanitized, &library("libwalarchive.a"));
    let failing = run(&scratch, &[program.to_str().unwrap()], &settings);
    assert_eq!((failing.code, failing.stderr.as_str()), (Some(0), ""), "{failing:#?}");
}

#[test]
fn ten_thousand_failures_and_sixteen_threads_leak_nothing() {
    let scratch = Scratch::new();
    let product = Product::with(&scratch, Options { init: false, encrypted: false, ..Options::default() });
    let settings = settings(&scratch, &product);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/hammer.c");
    let sanitized = ["-fsanitize=address,undefined"];
    let program = compiled(&scratch, &source, &sanitized, &library("libwalarchive.a"));
    let run = run(&scratch, &[program.to_str().unwrap(), "10000"], &settings);
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:#?}");
    assert!(run.stdout.contains("\"segments\":16"), "{run:#?}");
    for number in 1..=16 {
        let copy = format!("{}.copy", segment_name(1, number));
        assert!(fs::read(scratch.join(copy)).unwrap() == segment(1, number, number.into()));
    }
}

#[test]
fn valgrind_finds_nothing() {
    let Some(_) = require("valgrind") else { return };
    let scratch = Scratch::new();
    let product = Product::with(&scratch, Options { init: false, encrypted: false, ..Options::default() });
    let settings = settings(&scratch, &product);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/hammer.c");
    let copy = scratch.join(soname());
    fs::copy(library("libwalarchive.so"), &copy).unwrap();
    let here = format!("-Wl,-rpath,{}", scratch.path().display());
    let program = compiled(&scratch, &source, &[&here], &copy);
    let watched =
        ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite"];
    let run = run(&scratch, &[&watched[..], &[program.to_str().unwrap(), "80"]].concat(), &settings);
    assert_eq!(run.code, Some(0), "{run:#?}");
}
