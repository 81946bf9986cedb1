//! Restores.

use serde_json::json;
use walarchive_core::archive::Catalog;
use walarchive_core::ops::restore::{
    Delta, Plan, Recovery, RestoreRequest, preview, restore as carry_out, restore_command,
};
use walarchive_core::{Error, Result};

use crate::args::RestoreArgs;
use crate::output::bytes;
use crate::run::Context;

/// `restore`
pub(crate) async fn restore(context: Context, args: RestoreArgs) -> Result<u8> {
    let archive = context.archive().await?;
    // PGDATA may name the very directory that was lost: it says nothing about which cluster is wanted.
    let catalog = context.catalog_of(&archive, context.settings.system_id()?).await?;
    let wish = args.wanted.wish()?;
    let recovery = recovery(&context, &args, &catalog)?;
    let request = RestoreRequest {
        catalog,
        wish,
        target_dir: args.target_dir.clone(),
        delta: match (args.delta, args.yes) {
            (false, _) => Delta::Refused,
            (true, false) => Delta::Proven,
            (true, true) => Delta::Confirmed,
        },
        only_databases: args.only_database,
        tablespaces: args.tablespace,
        recovery,
        jobs: usize::from(args.jobs),
        progress: context.progress.clone(),
    };
    if args.dry_run {
        let plan = preview(&request).await?;
        context.output.result(&plan, || told(&plan))?;
        return Ok(0);
    }
    if context.settings.envdir().is_none() {
        tell_of_credentials(&context);
    }
    let done = carry_out(request).await?;
    let document = json!({
        "backup": done.plan.backup, "target_dir": args.target_dir, "to": done.plan.to, "timeline": done.plan.timeline,
        "bytes_written": done.bytes_written, "notes": done.notes,
    });
    context.output.result(&document, || {
        format!(
            "restored backup {} to {} ({} written)\nstart PostgreSQL there: it replays WAL to {} on timeline {}",
            done.plan.backup,
            args.target_dir.display(),
            bytes(done.bytes_written),
            done.plan.to,
            done.plan.timeline
        )
    })?;
    for note in done.plan.notes.iter().chain(&done.notes) {
        context.output.warning(note);
    }
    Ok(0)
}

/// What the restored server's recovery is told.
fn recovery(context: &Context, args: &RestoreArgs, catalog: &Catalog) -> Result<Recovery> {
    Ok(Recovery {
        restore_command: fetch_command(context, catalog)?,
        exclusive: args.wanted.exclusive,
        action: args.action,
        standby: args.standby,
    })
}

/// The `restore_command` that fetches this cluster's WAL from the archive.
pub(crate) fn fetch_command(context: &Context, catalog: &Catalog) -> Result<String> {
    let (config, mut variables) = context.settings.for_restore_command()?;
    if !variables.iter().any(|(name, _)| *name == "WALARCHIVE_CLUSTER") && config.is_none() {
        variables.push(("WALARCHIVE_CLUSTER", catalog.place.cluster.to_string()));
    }
    let program = program(context.settings.envdir())?;
    let words: Vec<&str> = program.iter().map(String::as_str).collect();
    Ok(restore_command(&words, &variables, config.as_deref()))
}

fn told(plan: &Plan) -> String {
    let timelines: Vec<_> = plan.timelines.iter().map(u32::to_string).collect();
    let mut lines = vec![
        format!("backup     {} (complete at {})", plan.backup, plan.backup_finished_at),
        format!("to         {}", plan.to),
        format!("timelines  {}", timelines.join(" then ")),
        format!("WAL        {} to {}, without a gap", plan.first_segment, plan.last_segment),
    ];
    lines.extend(plan.notes.iter().map(|note| format!("note       {note}")));
    lines.join("\n")
}

/// Credentials are not written into the server's settings. Without them its recovery would stop at the first segment.
pub(crate) fn tell_of_credentials(context: &Context) {
    let names = context.settings.credentials_in_environment();
    if !names.is_empty() {
        context.output.warning(&format!(
            "start the restored server with {} in its environment, or keep them in files: its restore_command needs them",
            names.join(", ")
        ));
    }
}

/// The program that `restore_command` calls: the thin one beside this one, or this one.
fn program(envdir: Option<&std::path::Path>) -> Result<Vec<String>> {
    let own =
        std::env::current_exe().map_err(|error| Error::io("cannot find this program's own path", error))?;
    let thin = own.with_file_name("walarchive-fetch");
    let utf8 = |path: &std::path::Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::usage(format!("the path of this program is not UTF-8: {}", path.display())))
    };
    let mut words = match thin.is_file() {
        true => vec![utf8(&thin)?],
        false => vec![utf8(&own)?, "wal".to_owned(), "fetch".to_owned()],
    };
    if let Some(dir) = envdir {
        let dir = std::path::absolute(dir).map_err(|error| Error::io("cannot resolve --envdir", error))?;
        words.extend(["--envdir".to_owned(), utf8(&dir)?]);
    }
    Ok(words)
}
