//! Commands and mail around a run of dumps.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use walarchive_core::postgres::stop::Stop;
use walarchive_core::{Error, Kind, Result};

use super::create::hook_failed;
use super::report::Report;
use crate::run::Context;

/// Runs the command that goes before. When it fails, nothing is dumped.
pub(super) fn pre(context: &Context, stop: &Stop, report: &Report) -> Result<()> {
    let Some(command) = context.settings.dump_pre_hook() else { return Ok(()) };
    shell(context, "pre", command, report, Some(stop))
}

/// Runs the command that goes behind, however the run went. When it fails, the run counts as failed; the dumps stay.
pub(super) fn post(context: &Context, report: &mut Report) {
    let Some(command) = context.settings.dump_post_hook() else { return };
    if let Err(error) = shell(context, "post", command, report, None) {
        report.fail(error);
    }
}

/// The run's facts are in the environment, and the whole report as JSON on standard input. What the command prints goes to
/// standard error: standard output is for the result.
fn shell(context: &Context, which: &str, command: &str, report: &Report, stop: Option<&Stop>) -> Result<()> {
    context.output.detail(&format!("running the {which} hook"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).envs(report.facts()).env("DUMP_HOOK", which);
    let output = feed(&mut shell, report.document().to_string().as_bytes(), stop)
        .map_err(|error| error.during(format!("running the {which} hook")))?;
    stop.map_or(Ok(()), Stop::check)?;
    for line in
        String::from_utf8_lossy(&output.stdout).lines().chain(String::from_utf8_lossy(&output.stderr).lines())
    {
        context.output.info(&format!("{which} hook: {line}"));
    }
    match output.status.success() {
        true => Ok(()),
        false => Err(hook_failed(which, output.status.to_string())),
    }
}

/// Runs a command with this input; `stop` ends it with all that it has started.
fn feed(command: &mut Command, input: &[u8], stop: Option<&Stop>) -> Result<Output> {
    let failed = |error| Error::io("it cannot be run", error);
    let never = Stop::default();
    if stop.is_some() {
        command.process_group(0);
    }
    let stop = stop.unwrap_or(&never);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = stop.start(|| command.spawn().map_err(failed))?;
    let (pipe, input) = (child.stdin.take(), input.to_vec());
    // Beside the reading: neither waits for the other. Who does not want the input need not take it.
    let giving = std::thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(&input)));
    let (stdout, stderr) = (collected(child.stdout.take()), collected(child.stderr.take()));
    let status = stop.wait(&mut child).map_err(failed)?;
    let output = Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    };
    let _ = giving.join();
    Ok(output)
}

fn collected(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut printed = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut printed);
        }
        printed
    })
}

/// Mails the report, if that is asked for.
pub(super) fn mail(context: &Context, report: &mut Report) {
    let Some((to, text)) = report.letter() else { return };
    let program = context.settings.dump_sendmail();
    let mut command = Command::new(program);
    let sent = feed(command.args(["-i", "--", &to]), text.as_bytes(), None);
    let failed = match sent {
        Ok(output) if output.status.success() => return,
        Ok(output) => output.status.to_string(),
        Err(error) => error.story(),
    };
    report.fail(Error::new(Kind::Local, format!("the report could not be mailed with {program}: {failed}")));
}
