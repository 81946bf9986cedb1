//! The whole circle on a throw-away cluster: archive, back up, destroy, restore to a moment, compare.
//!
//! Everything is done by the programs that users run, in processes of their own, with an environment in which nobody
//! else's settings are. PostgreSQL refuses to run as root, so root's demo is done by this program running as somebody
//! else ([`unprivileged`]).

mod balance;
mod circle;
mod client;
mod ledger;
mod load;
mod place;
mod process;
mod programs;
mod report;
mod server;
mod unprivileged;

use walarchive_core::{Error, Result};

use crate::args::DemoArgs;
use crate::interrupt::Interrupt;
use crate::run::Context;
use place::Place;
use programs::Programs;

/// `demo`: 0 only when every comparison held; 128 and the signal's number when it was told to stop.
pub(crate) fn demo(context: &Context, args: &DemoArgs) -> Result<u8> {
    let interrupt = Interrupt::listen()?;
    let done = match &args.inside {
        Some(dir) => within(context, args, &interrupt, Place::inside(dir.clone(), args.keep)),
        None => outermost(context, args, &interrupt),
    };
    match interrupt.signal() {
        Some(signal) if args.inside.is_none() => {
            context
                .output
                .warning("told to stop: nothing was proven, and everything that was started is gone");
            Ok(128_u8.saturating_add(signal))
        }
        Some(signal) => Ok(128_u8.saturating_add(signal)),
        None => done,
    }
}

fn outermost(context: &Context, args: &DemoArgs, interrupt: &Interrupt) -> Result<u8> {
    // Before anything is made: whoever lacks PostgreSQL shall know at once.
    Programs::find(args.pg_bin.as_deref())?;
    let root = rustix::process::geteuid().is_root();
    let place = Place::make(args.dir.as_deref(), root, args.keep)?;
    if args.keep {
        context.output.info(&format!("everything stays in {}", place.path().display()));
    }
    if !root {
        return within(context, args, interrupt, place);
    }
    let done = unprivileged::run(&place, interrupt);
    if let Err(error) = place.clean() {
        context.output.warning(&error.story());
    }
    done
}

fn within(context: &Context, args: &DemoArgs, interrupt: &Interrupt, place: Place) -> Result<u8> {
    if args.inside.is_some() {
        unprivileged::die_with_parent()?;
    }
    let programs = Programs::find(args.pg_bin.as_deref())?;
    let report = circle::run(context.output, &place, programs, interrupt, args.keep)?;
    place.clean()?;
    context.output.result(&report, || report.told())?;
    Ok(report.exit_code())
}

/// A failure of the server or of the demo's work with it.
fn failed(message: impl Into<String>) -> Error {
    Error::new(walarchive_core::Kind::Local, message)
}
