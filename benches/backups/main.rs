//! Backups and restores of one live cluster: this product's, other programs' where they are in `PATH`, and what the bare
//! compression of the same bytes takes, all in one run.

mod contenders;
mod floors;
mod place;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_benches::contenders::{Contender, say_once, versions};
use walarchive_benches::{Report, Used, Who, smoke};
use walarchive_tests::Scratch;

use crate::contenders::all;
use crate::floors::{Pages, ideal};
use crate::place::Live;
use crate::report::Steps;

const ROUNDS: usize = 3;

/// Pages that are updated at random before an increment, in per mille of all.
const UPDATES: [u32; 3] = [0, 10, 50];

fn main() {
    let mut report = Report::new("backups");
    let size = place::wanted_mib();
    let Some(live) = Live::start(size) else { return };
    let mut steps = Steps::default();
    for number in 0..if smoke() { 1 } else { ROUNDS } {
        live.archive_nowhere();
        let contenders = all(&live);
        if number == 0 {
            report.fact(versions(&contenders, &["pg_basebackup", "zstd", "tar"]));
        }
        round(&live, &contenders, &mut steps);
    }
    let size = live.data_bytes() / 1_000_000;
    report.fact(format!("pgbench, {size} MB of files, two jobs each, in directories unless S3 is named"));
    steps.tell(&mut report);
    report.finish();
}

/// A full backup and its restore, increments, and a restore of the last one over the first: by everybody, in turn.
fn round(live: &Live, contenders: &[Contender<'_>], steps: &mut Steps) {
    for contender in contenders {
        if let Some(full) = &contender.full {
            measure(steps, "full backup", contender, full());
        }
    }
    for contender in contenders {
        if let Some(verify) = &contender.verify {
            measure(steps, "verify: all that is stored read and proven", contender, verify());
        }
    }
    let restored = live.scratch.dir("restored");
    for contender in contenders {
        if let Some(restore) = &contender.restore {
            let target = restored.join(contender.place);
            let command = restore(&make(&live.scratch, &target));
            measure(steps, "restore", contender, command);
        }
    }
    for per_mille in UPDATES {
        increments(live, steps, contenders, per_mille);
    }
    for contender in contenders {
        if let Some(delta) = &contender.delta {
            measure(steps, "delta restore", contender, delta(&restored.join(contender.place)));
        }
    }
    contenders.iter().for_each(|contender| place::remove(&contender.repository));
    place::remove(&restored);
}

fn increments(live: &Live, steps: &mut Steps, contenders: &[Contender<'_>], per_mille: u32) {
    let before = Pages::of(live.cluster.data_dir());
    live.update(per_mille);
    let step = format!("increment, {} % of the pages updated", f64::from(per_mille) / 10.0);
    steps.add_ideal(&step, ideal(&before, live.cluster.data_dir()));
    for contender in contenders {
        if let Some(increment) = &contender.increment {
            measure(steps, &step, contender, increment());
        }
    }
}

fn make(scratch: &Scratch, target: &Path) -> PathBuf {
    std::fs::create_dir(target).expect("make a directory to restore into");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(target, mode).expect("set its mode");
    scratch.own(target);
    target.to_owned()
}

/// Runs a step when nothing is left to be written of the one before.
fn measure(steps: &mut Steps, step: &str, contender: &Contender<'_>, command: Command) {
    rustix::fs::sync();
    let before = contender.backups.bytes();
    let used = match Used::tried(command) {
        Ok(used) => used,
        // What a version of another program cannot do, it is left out of.
        Err(failed) if contender.who == Who::Other => {
            return say_once(format!("{} is left out of {step}: {failed}", contender.name));
        }
        Err(failed) => panic!("{failed}"),
    };
    steps.add(step, (contender.name, contender.who), used, contender.backups.bytes().saturating_sub(before));
}
