//! `restore-latest`: the cluster back into service, or the old one where it was.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use walarchive_core::archive::{Backup, BackupId, Catalog, ObjectKind};
use walarchive_core::config::RestoreLatest;
use walarchive_core::ops::replace::{self, Held, Journal, Replacement, Step};
use walarchive_core::ops::restore::{
    Action, Delta, Plan, Recovery, RestoreRequest, Wish, plan_restore, preflight, restore,
};
use walarchive_core::postgres::client::Client;
use walarchive_core::postgres::programs::ServerPrograms;
use walarchive_core::postgres::service::{Recovered, Service, hold_archiving};
use walarchive_core::postgres::stop::Stop;
use walarchive_core::wal::WalName;
use walarchive_core::{Error, Kind, Result};

use crate::args::RestoreLatestArgs;
use crate::interrupt::Interrupt;
use crate::restore::{fetch_command, tell_of_credentials};
use crate::run::{Context, runtime};

/// How long a server that is put back may take before no more is waited for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the command works with.
struct Work<'a> {
    context: &'a Context,
    args: &'a RestoreLatestArgs,
    set: RestoreLatest,
    target: PathBuf,
    interrupt: Interrupt,
    runtime: Runtime,
    begun: Instant,
}

/// What was proven before anything was touched.
struct Proven {
    catalog: Catalog,
    plan: Plan,
    backup: Backup,
    service: Service,
}

/// `restore-latest`
pub(crate) fn restore_latest(context: &Context, args: &RestoreLatestArgs) -> Result<u8> {
    let set = settings(context, args)?;
    let target = target(context, args)?;
    refuse_production(&set, args)?;
    let (interrupt, runtime) = (Interrupt::listen()?, runtime()?);
    let work = Work { context, args, set, target, interrupt, runtime, begun: Instant::now() };
    let done = work.run();
    work.runtime.shutdown_background();
    done
}

/// Flags beat settings.
fn settings(context: &Context, args: &RestoreLatestArgs) -> Result<RestoreLatest> {
    let set = context.settings.restore_latest()?;
    let or = |flag: &Option<String>, setting: Option<String>| flag.clone().or(setting);
    Ok(RestoreLatest {
        stop_command: or(&args.stop_command, set.stop_command),
        start_command: or(&args.start_command, set.start_command),
        check_sql: or(&args.check_sql, set.check_sql),
        pre_hook: or(&args.pre_hook, set.pre_hook),
        post_hook: or(&args.post_hook, set.post_hook),
        production_name: set.production_name,
        timeout: set.timeout,
    })
}

fn target(context: &Context, args: &RestoreLatestArgs) -> Result<PathBuf> {
    let dir = args.target_dir.clone().or_else(|| context.settings.data_dir());
    let dir = dir.ok_or_else(|| Error::usage("which data directory? --target-dir or PGDATA names it"))?;
    let dir = std::path::absolute(&dir)
        .map_err(|error| Error::io(format!("cannot resolve {}", dir.display()), error))?;
    // The directories beside it are exchanged with it: they must be in the same place as it really is.
    if dir.symlink_metadata().is_ok_and(|facts| facts.is_symlink()) {
        return dir
            .canonicalize()
            .map_err(|error| Error::io(format!("cannot follow {}", dir.display()), error));
    }
    if dir.file_name().is_none() {
        return Err(Error::usage(format!("{} cannot be a data directory", dir.display())));
    }
    Ok(dir)
}

fn refuse_production(set: &RestoreLatest, args: &RestoreLatestArgs) -> Result<()> {
    match (&set.production_name, &args.production_name) {
        (Some(name), given) if given.as_ref() != Some(name) => Err(Error::new(
            Kind::Busy,
            "this host is marked as production (restore_latest.production_name); nothing was touched",
        )
        .hint("--production-name with the name that is set there says that it is meant")),
        (None, Some(given)) => Err(Error::new(
            Kind::Busy,
            format!("this host is not marked as {given:?}, nor as any production; nothing was touched"),
        )
        .hint("leave out --production-name if this is the right host")),
        _ => Ok(()),
    }
}

impl Work<'_> {
    fn alive(&self) -> Result<()> {
        self.interrupt.check()
    }

    fn say(&self, text: &str) {
        self.context.output.info(text);
    }

    fn run(&self) -> Result<u8> {
        let lock = replace::lock(&self.target)?;
        let found = Replacement::find(&self.target, lock)?;
        let held = match found {
            Ok(replacement) if self.args.undo => return self.undo(replacement),
            Ok(replacement) if !self.args.yes => {
                let what = format!("a restore-latest of {} was cut off", self.target.display());
                return Err(Error::new(Kind::Busy, what).on(replacement.new_dir().display()).hint(
                    "with --yes it is finished, with --undo it is undone; until then nothing else is done",
                ));
            }
            Ok(replacement) if replacement.journal().step == Step::Starting => {
                return self.go_on(replacement);
            }
            Ok(replacement) => self.begin_again(replacement)?,
            Err(_) if self.args.undo => {
                let what = format!(
                    "there is nothing to undo: no restore-latest of {} was cut off",
                    self.target.display()
                );
                return Err(Error::new(Kind::Absent, what));
            }
            Err(held) => held,
        };
        let id = BackupId::fresh()?;
        let proven = self.prove(&id)?;
        if !self.args.yes {
            self.context.output.result(&proven.plan, || planned(&proven.plan, &self.target))?;
            return Ok(0);
        }
        let journal = Journal {
            id: id.to_string(),
            step: Step::Restoring,
            had_old: self.target.symlink_metadata().is_ok(),
            was_running: proven.service.is_running()?,
            backup: proven.plan.backup.clone(),
            tablespaces: places(&proven.backup, self.args),
        };
        self.hook("pre", self.set.pre_hook.as_deref(), "begun")?;
        let replacement = Replacement::begin(&self.target, journal, held)?;
        self.carry_out(replacement, proven)
    }

    /// Proves all that can be proven before anything is touched.
    fn prove(&self, id: &BackupId) -> Result<Proven> {
        self.say("proving that it can be done");
        let (catalog, plan, backup) = self.interrupt.during(&self.runtime, self.look())?;
        let service = self.service(backup.facts.pg_major)?;
        let request = self.request(&catalog, &plan, &beside(&self.target, id))?;
        self.interrupt.during(&self.runtime, preflight(&request))?;
        self.refuse_strangers(&backup)?;
        service.refuse_options_that_archive()?;
        Ok(Proven { catalog, plan, backup, service })
    }

    async fn look(&self) -> Result<(Catalog, Plan, Backup)> {
        let context = self.context;
        let archive = context.archive().await?;
        let catalog = context.catalog_of(&archive, context.settings.system_id()?).await?;
        let plan = plan_restore(&catalog, &self.args.wanted.wish()?, context.progress.as_ref()).await?;
        let backup = catalog.backup(&plan.id).await?;
        // Whoever can read the newest WAL can read what recovery is going to fetch.
        let newest: WalName = plan.last_segment.parse()?;
        let (key, size) = (catalog.place.wal(&newest), backup.facts.segment_size);
        catalog.archive.read_bytes(&key, ObjectKind::Wal, size).await?;
        Ok((catalog, plan, backup))
    }

    /// What is in the way must be this cluster, or nothing, and something that can be moved.
    fn refuse_strangers(&self, backup: &Backup) -> Result<()> {
        if !self.target.is_dir() {
            return Ok(());
        }
        let device = |path: &Path| path.metadata().ok().map(|facts| facts.dev());
        if device(&self.target) != self.target.parent().and_then(device) {
            let message =
                format!("{} is where a file system is mounted, and cannot be moved", self.target.display());
            return Err(Error::new(Kind::UnsafeTarget, message)
                .hint("'walarchive restore --delta' brings the cluster back within it"));
        }
        match walarchive_core::postgres::datadir::system_id_of(&self.target)? {
            Some(other) if other.to_string() != backup.facts.system_id => Err(Error::new(
                Kind::WrongCluster,
                format!(
                    "{} belongs to the cluster with system identifier {other}, the backup to {}; nothing was touched",
                    self.target.display(),
                    backup.facts.system_id
                ),
            )),
            _ => Ok(()),
        }
    }

    fn service(&self, major: u32) -> Result<Service> {
        let programs = ServerPrograms::of(self.context.settings.bin_dir().as_deref(), major)?;
        let by_commands = self.set.stop_command.is_some() && self.set.start_command.is_some();
        if rustix::process::geteuid().is_root() && !by_commands {
            return Err(Error::usage("PostgreSQL does not run as root, and pg_ctl refuses to").hint(
                "run this as PostgreSQL's user, or set restore_latest.stop_command and restore_latest.start_command",
            ));
        }
        Ok(Service {
            client: Client::new(
                programs.clients().clone(),
                self.context.settings.connection(),
                Stop::default(),
            ),
            programs,
            data_dir: self.target.clone(),
            stop_command: self.set.stop_command.clone(),
            start_command: self.set.start_command.clone(),
            timeout: self.set.timeout,
        })
    }

    fn request(&self, catalog: &Catalog, plan: &Plan, target: &Path) -> Result<RestoreRequest> {
        Ok(RestoreRequest {
            catalog: catalog.clone(),
            wish: Wish { backup: Some(plan.id.clone()), ..self.args.wanted.wish()? },
            target_dir: target.to_owned(),
            delta: Delta::Refused,
            only_databases: Vec::new(),
            tablespaces: self.args.tablespace.clone(),
            recovery: Recovery {
                restore_command: fetch_command(self.context, catalog)?,
                exclusive: self.args.wanted.exclusive,
                action: Action::Promote,
                standby: false,
            },
            jobs: usize::from(self.args.jobs),
            progress: self.context.progress.clone(),
        })
    }

    fn carry_out(&self, mut replacement: Replacement, proven: Proven) -> Result<u8> {
        match self.exchange(&mut replacement, &proven) {
            Ok(recovered) => self.conclude(replacement, Some(&proven.plan), &recovered),
            Err(error) => self.roll_back(replacement, &proven.service, error),
        }
    }

    fn exchange(&self, replacement: &mut Replacement, proven: &Proven) -> Result<Recovered> {
        let alive = || self.alive();
        self.say("stopping the server");
        proven.service.stop(&alive)?;
        let new = replacement.new_dir();
        self.say(&format!("restoring backup {} to {}", proven.plan.backup, new.display()));
        if self.context.settings.envdir().is_none() {
            tell_of_credentials(self.context);
        }
        let request = self.request(&proven.catalog, &proven.plan, &new)?;
        self.interrupt.during(&self.runtime, restore(request))?;
        hold_archiving(&new)?;
        replacement.swap()?;
        self.serve(&proven.service, replacement)
    }

    /// Starts the new server as the old one was, and looks at it.
    fn serve(&self, service: &Service, replacement: &Replacement) -> Result<Recovered> {
        let alive = || self.alive();
        self.say("starting the server and waiting for the end of its recovery");
        service.start(&replacement.old_dir(), &alive)?;
        let recovered = service.wait_for_writes(&alive)?;
        if let Some(place) = &recovered.elsewhere {
            self.context.output.warning(&format!(
                "the server listens at {} port {}, and not where postgres.connection leads",
                place.host, place.port
            ));
        }
        if let Some(sql) = &self.set.check_sql {
            self.say("running the check");
            recovered.client.sql(None, sql).map_err(|error| error.during("running the check"))?;
        }
        service.let_archive(&recovered)?;
        Ok(recovered)
    }

    fn conclude(&self, replacement: Replacement, plan: Option<&Plan>, recovered: &Recovered) -> Result<u8> {
        let old = replacement.journal().had_old.then(|| replacement.old_dir());
        let backup = replacement.journal().backup.clone();
        replacement.end()?;
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let document = json!({
            "ok": true, "backup": backup, "to": self.args.wanted.to.to_string(),
            "timeline": plan.map(|plan| plan.timeline), "target_dir": self.target, "reached_lsn": recovered.lsn,
            "reached_time": recovered.time, "duration_ms": ms, "old_dir": old,
            "elsewhere": recovered.elsewhere.as_ref().map(|place| json!({ "host": place.host, "port": place.port })),
            "notes": plan.map(|plan| &plan.notes),
        });
        self.context.output.report(&document, || told(&document))?;
        self.hook("post", self.set.post_hook.as_deref(), "ok")?;
        Ok(0)
    }

    /// Puts everything back where it was; the error that was the reason.
    fn roll_back(&self, replacement: Replacement, service: &Service, error: Error) -> Result<u8> {
        self.context.output.problem(&error);
        self.say("undoing it");
        let told = match self.back(replacement, service) {
            Ok((told, _)) => told,
            Err(failure) => {
                let hint = "'walarchive restore-latest --undo' tries again";
                return Err(error
                    .during(format!("undoing it failed as well ({})", failure.story()))
                    .hint(hint));
            }
        };
        if let Err(hook) = self.hook("post", self.set.post_hook.as_deref(), "failed") {
            self.context.output.problem(&hook);
        }
        match self.interrupt.signal() {
            Some(signal) => Ok(128_u8.saturating_add(signal)),
            None => Err(error.during(told)),
        }
    }

    /// The old directory in its place, and its server running if it did.
    fn back(&self, mut replacement: Replacement, service: &Service) -> Result<(String, Held)> {
        let always = || Ok(());
        service.stop(&always)?;
        let kept = replacement.put_back()?;
        let journal = replacement.journal().clone();
        let mut running = "";
        if journal.was_running && journal.had_old {
            service.start(&self.target, &always)?;
            running = match service.answers_within(PATIENCE) {
                true => ", its server runs again",
                false => ", its server is started again and does not answer yet",
            };
        }
        let held = replacement.release()?;
        let kept =
            kept.map(|dir| format!("; what was restored is kept in {}", dir.display())).unwrap_or_default();
        Ok((format!("all is as it was before{running}{kept}"), held))
    }

    /// `--undo`
    fn undo(&self, replacement: Replacement) -> Result<u8> {
        let major = self.major(&replacement)?;
        let service = self.service(major)?;
        let (told, _) = self.back(replacement, &service)?;
        self.context
            .output
            .report(&json!({ "ok": true, "undone": true, "target_dir": self.target }), || told)?;
        Ok(0)
    }

    /// One that was cut off when the new directory was in its place: it is only started and looked at.
    fn go_on(&self, replacement: Replacement) -> Result<u8> {
        self.say("going on with what was cut off");
        let service = self.service(self.major(&replacement)?)?;
        match self.serve(&service, &replacement) {
            Ok(recovered) => self.conclude(replacement, None, &recovered),
            Err(error) => self.roll_back(replacement, &service, error),
        }
    }

    /// One that was cut off before: all is put back, as it is to be proven anew.
    fn begin_again(&self, replacement: Replacement) -> Result<Held> {
        self.say("undoing what was cut off, to begin again");
        let service = self.service(self.major(&replacement)?)?;
        let (told, held) = self.back(replacement, &service)?;
        self.say(&told);
        Ok(held)
    }

    /// The version of whichever data directory there is.
    fn major(&self, replacement: &Replacement) -> Result<u32> {
        let dirs = [self.target.clone(), replacement.old_dir(), replacement.new_dir()];
        let version =
            |dir: &PathBuf| std::fs::read_to_string(dir.join("PG_VERSION")).ok()?.trim().parse().ok();
        dirs.iter().find_map(version).ok_or_else(|| {
            Error::new(Kind::Local, format!("there is no data directory beside {}", self.target.display()))
        })
    }

    /// Runs a hook; what it prints goes to standard error.
    fn hook(&self, which: &str, command: Option<&str>, status: &str) -> Result<()> {
        let Some(command) = command else { return Ok(()) };
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", command])
            .stdin(Stdio::null())
            .env("RESTORE_HOOK", which)
            .env("RESTORE_STATUS", status);
        let output = shell.env("RESTORE_TARGET_DIR", &self.target).output();
        let output = output.map_err(|error| Error::io(format!("the {which} hook cannot be run"), error))?;
        for text in [&output.stdout, &output.stderr] {
            String::from_utf8_lossy(text).lines().for_each(|line| self.say(&format!("{which} hook: {line}")));
        }
        if output.status.success() {
            return Ok(());
        }
        Err(Error::new(Kind::Local, format!("the {which} hook failed ({})", output.status)))
    }
}

fn beside(target: &Path, id: &BackupId) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{id}"));
    target.with_file_name(name)
}

/// Where the tablespaces of the restored cluster go.
fn places(backup: &Backup, args: &RestoreLatestArgs) -> Vec<PathBuf> {
    let place = |location: &PathBuf| {
        let mapped = args.tablespace.iter().find(|mapping| mapping.old == *location);
        mapped.map_or_else(|| location.clone(), |mapping| mapping.new.clone())
    };
    backup.facts.tablespaces.iter().map(|tablespace| place(&tablespace.location)).collect()
}

fn planned(plan: &Plan, target: &Path) -> String {
    let notes: String = plan.notes.iter().map(|note| format!("note: {note}\n")).collect();
    format!(
        "{notes}everything is proven: backup {} can be restored to {} on timeline {}, and put in the place of {}\n--yes does it",
        plan.backup,
        plan.to,
        plan.timeline,
        target.display()
    )
}

fn told(document: &Value) -> String {
    let text = |key: &str| document[key].as_str().unwrap_or("unknown");
    let mut lines = vec![
        format!("{} is back in service", text("target_dir")),
        format!("backup       {}", text("backup")),
        format!("reached      {} ({})", text("reached_lsn"), text("to")),
        format!("last commit  {}", text("reached_time")),
        format!("took         {:.1} s", document["duration_ms"].as_f64().unwrap_or_default() / 1000.0),
    ];
    if let Some(old) = document["old_dir"].as_str() {
        lines.push(format!("before       {old}; remove it when all is well"));
    }
    lines.join("\n")
}
