//! From `main` to a command and back to an exit code.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use rustix::fs::Mode;
use tokio::runtime::Runtime;
use walarchive_core::archive::{Archive, Catalog, Place, SystemId};
use walarchive_core::config::{Flags, Settings};
use walarchive_core::patience::Patience;
use walarchive_core::postgres::datadir;
use walarchive_core::progress::Progress;
use walarchive_core::{Error, Kind, Result};

use crate::args::{BackupCommand, Cli, Command, FetchCli, Global, KeyCommand, PushCli, WalCommand};
use crate::exit::Caller;
use crate::output::Output;
use crate::{
    backup, bench, catch_up, check, copy, demo, drill, dump, fetch, init, key, progress, prune, restore,
    restore_latest, status, verify, wal,
};

/// What a command works with.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) progress: Arc<dyn Progress>,
}

/// The `walarchive` program.
pub fn main() -> ExitCode {
    let fetches = std::env::args_os().skip(1).any(|word| word == "fetch");
    let caller = if fetches { Caller::of_fetch(Path::new(".")) } else { Caller::Anybody };
    guarded::<Cli>(
        caller,
        |cli| (global_of(cli), caller_of(&cli.command)),
        |cli, context| dispatch(cli.command, context),
    )
}

/// The `walarchive-push` program.
pub fn push_main() -> ExitCode {
    let run = |cli: PushCli, context: Context| wal::push(context, cli.push);
    guarded(Caller::Anybody, |cli: &PushCli| (cli.global.clone(), Caller::Anybody), run)
}

/// The `walarchive-fetch` program.
pub fn fetch_main() -> ExitCode {
    let caller = Caller::of_fetch(Path::new("."));
    let run = |cli: FetchCli, context: Context| fetch::fetch(context, caller, cli.fetch);
    guarded(caller, |cli: &FetchCli| (cli.global.clone(), caller), run)
}

/// The demo has an archive of its own: settings that are meant for another one must not disturb it.
fn global_of(cli: &Cli) -> Global {
    let without_settings = match cli.command {
        Command::Demo(_) => Some("the demo makes an archive of its own, and uses no other"),
        Command::Bench(_) => Some("bench measures files, and uses no archive"),
        _ => None,
    };
    Global { without_settings, ..cli.global.clone() }
}

/// No settings at all; whoever names an archive expects it to be used.
fn refuse_settings(global: &Global, why: &str) -> Result<Settings> {
    let Flags { config, archive, cluster, system_id, envdir } = global.flags();
    if config.is_none() && archive.or(cluster).or(system_id).is_none() && envdir.is_none() {
        return Ok(Settings::default());
    }
    Err(Error::usage(why).hint("leave out --config, --archive, --cluster, --system-id and --envdir"))
}

fn caller_of(command: &Command) -> Caller {
    match command {
        Command::Wal(WalCommand::Fetch(_)) => Caller::of_fetch(Path::new(".")),
        _ => Caller::Anybody,
    }
}

/// Parses the command line, runs the command, and maps whatever comes of it to an exit code. A panic is a bug, and is
/// told apart from everything else.
fn guarded<C: Parser>(
    caller: Caller,
    about: impl FnOnce(&C) -> (Global, Caller),
    run: impl FnOnce(C, Context) -> Result<u8>,
) -> ExitCode {
    let code = run_guarded(caller, about, run);
    if fetch::is_ahead() { ExitCode::SUCCESS } else { code }
}

fn run_guarded<C: Parser>(
    caller: Caller,
    about: impl FnOnce(&C) -> (Global, Caller),
    run: impl FnOnce(C, Context) -> Result<u8>,
) -> ExitCode {
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error, caller),
    };
    // Nobody but the owner writes what is made here, and strangers do not read it.
    let inherited = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(inherited | Mode::from_raw_mode(0o027));
    let (global, caller) = about(&cli);
    let output = Output::new(&global);
    std::panic::set_hook(Box::new(move |panic| output.warning(&format!("internal error: {panic}"))));
    let work = || {
        let mut settings = match global.without_settings {
            Some(why) => refuse_settings(&global, why)?,
            None => Settings::load(&global.flags(), variables()?.into_iter())?,
        };
        settings.tell(move |text| output.warning(text));
        let progress = Arc::new(progress::Terminal::new(output));
        run(cli, Context { settings, output, progress })
    };
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::bug("the program failed in a way that it should not; please report it"))
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = caller.code(error.kind());
            output.error(&error, code);
            ExitCode::from(code)
        }
    }
}

fn misunderstood(error: &clap::Error, caller: Caller) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let code = caller.code(Kind::Usage);
    let json = std::env::args_os().any(|word| word == "--json");
    Output::new(&Global { json, ..Global::default() }).usage(&error.render().to_string(), code);
    ExitCode::from(code)
}

/// The environment. A setting that is not UTF-8 is refused: to pass over it would mean another archive.
fn variables() -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("WALARCHIVE_") || name == "PGDATA" => {
                return Err(Error::usage(format!("the value of {name} is not UTF-8")));
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

/// Runs async work to its end on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(work)
}

/// What runs async work on the thread that waits for it.
pub(crate) fn runtime() -> Result<Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Error::io("cannot start", error))
}

fn dispatch(command: Command, context: Context) -> Result<u8> {
    match command {
        Command::Init(args) => block_on(init::init(context, args)),
        Command::Key(KeyCommand::Generate { output, writer }) => {
            key::generate(&context, output.as_deref(), writer)
        }
        Command::Key(KeyCommand::Rotate(args)) => block_on(key::rotate(context, args)),
        Command::Key(KeyCommand::Show { file }) => key::show(&context, &file),
        Command::Wal(WalCommand::Push(args)) => wal::push(context, args),
        Command::Wal(WalCommand::Fetch(args)) => {
            fetch::fetch(context, Caller::of_fetch(Path::new(".")), args)
        }
        Command::Wal(WalCommand::List) => block_on(wal::list(context)),
        Command::Wal(WalCommand::Show { name }) => block_on(wal::show(context, name)),
        Command::Backup(BackupCommand::Create(args)) => block_on(backup::create(context, args)),
        Command::Backup(BackupCommand::List) => block_on(backup::list(context)),
        Command::Backup(BackupCommand::Extract(args)) => block_on(backup::extract(context, args)),
        Command::Backup(BackupCommand::Show { id }) => block_on(backup::show(context, id)),
        Command::Backup(BackupCommand::Pin { id }) => block_on(backup::pin(context, id, true)),
        Command::Backup(BackupCommand::Unpin { id }) => block_on(backup::pin(context, id, false)),
        Command::Backup(BackupCommand::Delete { id, yes, even_the_last }) => {
            block_on(backup::delete(context, id, yes, even_the_last))
        }
        Command::Dump(command) => block_on(dump::dump(context, command)),
        Command::Prune(args) => block_on(prune::prune(context, args)),
        Command::Check(command) => block_on(check::check(context, command)),
        Command::Restore(args) => block_on(restore::restore(context, args)),
        Command::Copy(args) => block_on(copy::run(context, args)),
        Command::Verify(args) => block_on(verify::run(context, args)),
        Command::RestoreLatest(args) => restore_latest::restore_latest(&context, &args),
        Command::Drill(args) => drill::drill(&context, &args),
        Command::Status => block_on(status::status(context)),
        Command::CatchUp => block_on(catch_up::catch_up(context)),
        Command::Bench(args) => bench::bench(&context, &args),
        Command::Demo(args) => demo::demo(&context, &args),
    }
}

impl Context {
    /// The archive, each request to which is tried again.
    pub(crate) async fn archive(&self) -> Result<Archive> {
        self.settings.archive(&self.each_patient()?).await
    }

    /// Patience for everything that a command does with the archive, together; its beginning is told.
    pub(crate) fn patience(&self, budget: Duration) -> Patience {
        self.telling(Patience::altogether(budget))
    }

    /// Patience for each request to the archive.
    pub(crate) fn each_patient(&self) -> Result<Patience> {
        Ok(self.telling(Patience::each(self.settings.store_retry_budget()?)))
    }

    /// The same patience, its beginning told.
    pub(crate) fn telling(&self, patience: Patience) -> Patience {
        let output = self.output;
        patience.noticed_by(move |error, left| {
            output.info(&format!("{}; trying again for up to {} s", error.story(), left.as_secs()));
        })
    }

    /// The cluster's part of the archive. The system identifier is the one that is set, or that of the data directory that
    /// is set, or the only one under the cluster's name.
    pub(crate) async fn catalog(&self, archive: &Archive) -> Result<Catalog> {
        self.catalog_of(archive, self.system()?).await
    }

    /// The cluster's system identifier, where the settings or its data directory tell it.
    pub(crate) fn system(&self) -> Result<Option<SystemId>> {
        match (self.settings.system_id()?, self.settings.data_dir()) {
            (None, Some(dir)) => Ok(datadir::system_id_of(&dir)?.map(SystemId)),
            (known, _) => Ok(known),
        }
    }

    /// The same, for a system identifier that may be known.
    pub(crate) async fn catalog_of(&self, archive: &Archive, system: Option<SystemId>) -> Result<Catalog> {
        let cluster = self.settings.cluster()?;
        match system {
            Some(system) => {
                Ok(Catalog { archive: archive.clone(), place: Place::of_system(cluster, system) })
            }
            None => Catalog::find(archive, &cluster).await,
        }
    }
}
