//! `dump create`: a night's work, from the lock to the report.

use walarchive_core::archive::Catalog;
use walarchive_core::ops::dump::{DumpRequest, Outcome, RunDone, RunLock, check_mount, run};
use walarchive_core::ops::prune::delete as deletion;
use walarchive_core::ops::prune::expire_dumps::{self, DumpExpiry};
use walarchive_core::postgres::stop::Stop;
use walarchive_core::{Error, Kind, Result};

use super::report::Report;
use super::{hooks, stop};
use crate::args::DumpCreateArgs;
use crate::run::Context;

/// `dump create`. Whatever went wrong is in the report, on standard output, and decides the exit code; the report is made
/// and handed on even when nothing could be dumped.
pub(super) async fn create(context: Context, args: DumpCreateArgs) -> Result<u8> {
    let mut report = Report::default();
    let stop = stop::on_signals()?;
    let done = night(&context, args, &stop, &mut report).await;
    if let Err(error) = done {
        report.fail(error);
    }
    if let Err(stopped) = stop.check() {
        report.stopped(stopped);
    }
    if report.may_tell() {
        hooks::post(&context, &mut report);
        hooks::mail(&context, &mut report);
    }
    for warning in report.warnings() {
        context.output.warning(warning);
    }
    let code = report.exit_code();
    for error in report.errors() {
        context.output.problem(error);
    }
    context.output.report(&report.document(), || report.text())?;
    Ok(code)
}

async fn night(context: &Context, args: DumpCreateArgs, stop: &Stop, report: &mut Report) -> Result<()> {
    let settings = &context.settings;
    let rules = settings.dump_retention()?;
    let expected = args.expect_mount.clone().or_else(|| settings.dump_expect_mount().map(str::to_owned));
    let mail = settings.dump_mail()?;
    report.begin(settings.cluster()?.to_string(), mail);
    if let Some(expected) = &expected {
        check_mount(expected)?;
    }
    let archive = context.archive().await?;
    let request = request(context, archive.clone(), args, stop)?;
    let _lock = RunLock::take(&settings.state_dir(), archive.info().id(), &request.cluster.to_string())
        .inspect_err(|_| report.somebody_else())?;
    hooks::pre(context, stop, report)?;
    let catalog = Catalog::of_dumps(&archive.strict(), request.cluster.clone());
    let done = run(request).await?;
    let is_new: Vec<_> = committed(&done).collect();
    let expiry = match (rules.keeps_all(), is_new.is_empty() || stop.check().is_err()) {
        (false, false) => {
            let is_of = |dump: &walarchive_core::archive::Dump| is_new.contains(&dump.id);
            expire_dumps::plan(&catalog, &rules, is_of).await
        }
        _ => Ok(DumpExpiry::default()),
    };
    report.take(done);
    apply(&catalog, expiry, report).await;
    Ok(())
}

fn committed(done: &RunDone) -> impl Iterator<Item = walarchive_core::archive::BackupId> {
    done.outcomes
        .iter()
        .filter_map(|outcome: &Outcome| outcome.result.as_ref().ok().map(|dump| dump.id.clone()))
}

/// Removes what new dumps have taken the place of. What cannot be removed stays; the new dumps are good all the same.
async fn apply(catalog: &Catalog, expiry: Result<DumpExpiry>, report: &mut Report) {
    let expiry = match expiry {
        Ok(expiry) => expiry,
        Err(error) if error.kind() == Kind::Key => {
            return report.warn(
                "retention is not applied here: it needs an identity; run 'walarchive prune --yes' where there is one".to_owned(),
            );
        }
        Err(error) => return report.fail(error.during("retention is not applied")),
    };
    let Some(plan) = &expiry.deletion else { return };
    match deletion::run(catalog, plan).await {
        Ok(deleted) => {
            report.expired(expiry.expire().map(|id| id.to_string()).collect());
            if deleted.running.is_some() {
                report.warn("packs of expired dumps stay until another run has ended; 'walarchive prune --yes' removes them".to_owned());
            }
        }
        Err(error) => report.fail(error.during("removing expired dumps")),
    }
}

fn request(
    context: &Context,
    archive: walarchive_core::archive::Archive,
    args: DumpCreateArgs,
    stop: &Stop,
) -> Result<DumpRequest> {
    let settings = &context.settings;
    let or = |said: Vec<String>, set: Vec<String>| if said.is_empty() { set } else { said };
    let mut arguments = settings.dump_arguments();
    arguments.extend(args.arguments);
    Ok(DumpRequest {
        archive,
        cluster: settings.cluster()?,
        connection: settings.connection(),
        bin_dir: settings.bin_dir(),
        codec: settings.dump_codec()?,
        databases: or(args.database, settings.dump_databases()),
        exclude: or(args.exclude, settings.dump_exclude()),
        format: args.format.map_or_else(|| settings.dump_format(), Ok)?,
        with_create: args.create,
        globals: settings.dump_globals()? && !args.no_globals,
        globals_arguments: settings.dump_globals_arguments(),
        as_file: args.as_file,
        arguments,
        jobs: usize::from(args.jobs.map_or_else(|| settings.dump_jobs(), Ok)?),
        parallel_from: settings.dump_parallel_from()?,
        lease: settings.backup_lease()?,
        state_dir: Some(settings.state_dir()),
        scratch_dir: settings.dump_scratch_dir(),
        full: args.full,
        full_every: settings.dump_full_every()?,
        time_zone: settings.dump_time_zone()?,
        labels: args.labels.into_iter().collect(),
        pin: args.pin,
        progress: context.progress.clone(),
        stop: stop.clone(),
    })
}

impl Report {
    /// A run that found another one under way has nothing to say to hooks and mail.
    fn may_tell(&self) -> bool {
        !self.is_refused()
    }
}

/// An error of this kind came from a hook.
pub(super) fn hook_failed(which: &str, why: String) -> Error {
    Error::new(Kind::Local, format!("the {which} hook failed: {why}"))
}
