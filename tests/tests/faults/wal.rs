//! `init` and the commands for WAL, under every fault.

use std::fs;

use walarchive_tests::sample::{segment, segment_name};

use crate::lab::{Lab, Line};
use crate::table::{Operation, Ready, try_all};

/// The segment that is fetched.
const PRESENT: u32 = 4_000;
const HISTORY: &str = "00000002.history";
const HISTORY_TEXT: &str = "1\t0/300000\tno recovery target specified\n";

fn ready(line: &Line, args: &[&str], code: i32, name: &str, seed: u64) -> Ready {
    Ready { command: line.product.command(args), code, name: name.to_owned(), seed, dest: None }
}

fn push_new(lab: &Lab, line: &Line) -> Ready {
    let (path, name) = lab.write(lab.fresh_segment(), 1);
    ready(line, &["wal", "push", &path], 0, &name, 1)
}

fn push_again(lab: &Lab, line: &Line) -> Ready {
    let (path, name) = lab.write(lab.fresh_segment(), 1);
    lab.clean.ok(&["wal", "push", &path]);
    ready(line, &["wal", "push", &path], 0, &name, 1)
}

fn push_other(lab: &Lab, line: &Line) -> Ready {
    let number = lab.fresh_segment();
    lab.clean.ok(&["wal", "push", &lab.write(number, 1).0]);
    let (path, name) = lab.write(number, 2);
    ready(line, &["wal", "push", &path], 3, &name, 1)
}

/// After a push: stored are the content that was acknowledged, now or before, or nothing where none was.
fn pushed(lab: &Lab, ready: &Ready, code: i32) -> Result<(), String> {
    let number = u32::from_str_radix(&ready.name[16..], 16).expect("a segment's name");
    match lab.stored(&ready.name) {
        Some(content) if content == segment(1, number, ready.seed) => Ok(()),
        Some(_) => Err("other content is stored".into()),
        None if code == 0 || ready.code != 0 => Err("it is not stored".into()),
        None => Ok(()),
    }
}

/// After a push of something that was stored before.
fn still_there(lab: &Lab, ready: &Ready, _: i32) -> Result<(), String> {
    pushed(lab, ready, 0)
}

fn fetch(lab: &Lab, line: &Line, name: &str, code: i32) -> Ready {
    let dir = lab.scratch.dir(format!("dest{}", lab.fresh()));
    let mut command = line.product.command_of("walarchive-fetch", &[name, "dest"]);
    command.current_dir(&dir);
    Ready { command, code, name: name.to_owned(), seed: 1, dest: Some(dir) }
}

fn fetch_present(lab: &Lab, line: &Line) -> Ready {
    fetch(lab, line, &segment_name(1, PRESENT), 0)
}

fn fetch_absent(lab: &Lab, line: &Line) -> Ready {
    fetch(lab, line, "000000090000000000000009", 1)
}

fn fetch_history(lab: &Lab, line: &Line) -> Ready {
    fetch(lab, line, HISTORY, 0)
}

fn fetch_absent_history(lab: &Lab, line: &Line) -> Ready {
    fetch(lab, line, "00000009.history", 1)
}

/// After a fetch: the whole file, or none.
fn fetched(_: &Lab, ready: &Ready, code: i32) -> Result<(), String> {
    let dir = ready.dest.as_ref().expect("a destination");
    let names = walarchive_tests::sample::names(dir);
    let content = fs::read(dir.join("dest")).ok();
    let _ = fs::remove_dir_all(dir);
    let expected = match ready.name.as_str() {
        HISTORY => HISTORY_TEXT.as_bytes().to_vec(),
        _ => segment(1, PRESENT, 1),
    };
    match content {
        None if code != 0 && names.is_empty() => Ok(()),
        Some(content) if code == 0 && content == expected && names == ["dest"] => Ok(()),
        content => {
            Err(format!("{:?} bytes, in the directory {names:?}", content.map(|content| content.len())))
        }
    }
}

fn init(lab: &Lab, line: &Line) -> Ready {
    let prefix = format!("new/{}", lab.fresh());
    let url = lab.bucket.with_prefix(&prefix).url();
    let command = line.product.but("WALARCHIVE_ARCHIVE", &url).command(&["init"]);
    Ready { command, code: 0, name: prefix, seed: 0, dest: None }
}

/// After `init`: an archive that works; where it failed, trying again makes one.
fn made(lab: &Lab, ready: &Ready, code: i32) -> Result<(), String> {
    let bucket = lab.bucket.with_prefix(&ready.name);
    let product = lab.clean.but("WALARCHIVE_ARCHIVE", &bucket.url());
    if code != 0 {
        let again = product.run(&["init"]);
        if again.code != Some(0) {
            return Err(format!("init again: {again:?}"));
        }
    }
    let list = product.run(&["--json", "wal", "list"]);
    if list.code != Some(0) {
        return Err(format!("the archive does not work: {list:?}"));
    }
    Ok(())
}

fn nothing_to_judge(_: &Lab, _: &Ready, _: i32) -> Result<(), String> {
    Ok(())
}

#[test]
fn every_fault_under_push() {
    let Some(lab) = Lab::new() else { return };
    let operations = [
        Operation { name: "push of new", ready: push_new, judge: pushed, sees_flips: true },
        Operation { name: "push again", ready: push_again, judge: still_there, sees_flips: true },
        Operation { name: "push of other content", ready: push_other, judge: still_there, sees_flips: true },
    ];
    try_all(&lab, &operations, 6, 8);
}

#[test]
fn every_fault_under_fetch() {
    let Some(lab) = Lab::new() else { return };
    lab.clean.ok(&["wal", "push", &lab.write(PRESENT, 1).0]);
    lab.clean.ok(&["wal", "push", lab.scratch.write(HISTORY, HISTORY_TEXT).to_str().unwrap()]);
    let operations = [
        Operation { name: "fetch", ready: fetch_present, judge: fetched, sees_flips: true },
        Operation { name: "fetch of absent", ready: fetch_absent, judge: fetched, sees_flips: true },
        Operation { name: "fetch of history", ready: fetch_history, judge: fetched, sees_flips: true },
        Operation {
            name: "fetch of absent history",
            ready: fetch_absent_history,
            judge: fetched,
            sees_flips: true,
        },
    ];
    try_all(&lab, &operations, 6, 8);
}

#[test]
fn every_fault_under_init_and_list() {
    let Some(lab) = Lab::new() else { return };
    for number in 1..=3 {
        lab.clean.ok(&["wal", "push", &lab.write(3_000 + number, 1).0]);
    }
    let list: fn(&Lab, &Line) -> Ready = |_, line| ready(line, &["--json", "wal", "list"], 0, "", 0);
    let operations = [
        Operation { name: "init", ready: init, judge: made, sees_flips: true },
        Operation { name: "wal list", ready: list, judge: nothing_to_judge, sees_flips: false },
    ];
    try_all(&lab, &operations, 6, 8);
}
