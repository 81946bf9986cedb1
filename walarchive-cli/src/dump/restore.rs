//! `dump restore` and `dump export`.

use std::path::PathBuf;

use serde_json::json;
use walarchive_core::Result;
use walarchive_core::ops::dump_restore::{
    DumpRestoreRequest, Existing, Outlet, Selection, export as write, restore as bring_back, restore_globals,
    schema_name,
};

use super::{called, find, stop};
use crate::args::{DumpArgs, DumpRestoreArgs};
use crate::output::bytes;
use crate::run::Context;

/// `dump restore`
pub(super) async fn restore(context: Context, args: DumpRestoreArgs) -> Result<u8> {
    let stop = stop::on_signals()?;
    let catalog = context.dumps().await?;
    let dump = find(&catalog, &args.dump, args.globals).await?;
    let settings = &context.settings;
    if args.globals || dump.facts.content == walarchive_core::archive::DumpContent::Globals {
        return globals(&context, &catalog, &dump.id, args.overwrite, stop).await;
    }
    let existing = match () {
        () if args.swap => Existing::SetAside,
        () if args.overwrite => Existing::Replace,
        () if args.add => Existing::Add,
        () => Existing::Refuse,
    };
    let request = DumpRestoreRequest {
        catalog,
        id: dump.id.clone(),
        connection: settings.connection(),
        bin_dir: settings.bin_dir(),
        name: args.name,
        existing,
        selection: Selection {
            schemas: args.schema.iter().map(|name| schema_name(name)).collect::<Result<_>>()?,
            tables: args.table.iter().map(|name| name.parse()).collect::<Result<_>>()?,
        },
        no_owner: args.no_owner,
        allow_errors: args.allow_errors,
        transform: args.transform,
        jobs: usize::from(args.jobs),
        scratch_dir: settings.dump_scratch_dir(),
        progress: context.progress.clone(),
        stop,
    };
    let done = bring_back(request).await?;
    let document = json!({
        "dump": done.dump.id, "database": done.database, "from_database": done.dump.database,
        "data_bytes": done.dump.data_bytes, "set_aside": done.set_aside, "errors": done.errors,
        "leftovers": done.leftovers,
    });
    context.output.result(&document, || {
        let (id, size) = (&done.dump.id, bytes(done.dump.data_bytes));
        let restored = format!("database {:?} is restored from dump {id} ({size})", done.database);
        match &done.set_aside {
            Some(old) => format!("{restored}; the one before is {old:?} now"),
            None => restored,
        }
    })?;
    for error in &done.errors {
        context.output.warning(error);
    }
    Ok(0)
}

async fn globals(
    context: &Context,
    catalog: &walarchive_core::archive::Catalog,
    id: &walarchive_core::archive::BackupId,
    overwrite: bool,
    stop: walarchive_core::postgres::stop::Stop,
) -> Result<u8> {
    let settings = &context.settings;
    let done =
        restore_globals(catalog, id, settings.connection(), settings.bin_dir(), overwrite, stop).await?;
    let document = json!({ "dump": done.dump.id, "database": "globals", "left_alone": done.left_alone, "errors": done.errors });
    context.output.result(&document, || {
        let left = match done.left_alone.as_slice() {
            [] => String::new(),
            roles => format!("; left as they are: {}", roles.join(", ")),
        };
        format!("the globals of dump {id} are restored{left}")
    })?;
    for error in &done.errors {
        context.output.warning(error);
    }
    Ok(if done.errors.is_empty() { 0 } else { walarchive_core::Kind::Unrestorable.exit_code() })
}

/// `dump export`
pub(super) async fn export(context: Context, args: DumpArgs, output: Option<PathBuf>) -> Result<u8> {
    let catalog = context.dumps().await?;
    let dump = find(&catalog, &args, false).await?;
    let to = match &output {
        Some(path) => Outlet::Path(path.clone()),
        None => Outlet::Writer(context.output.raw()?),
    };
    let facts = write(&catalog, &dump.id, to, context.progress.clone()).await?;
    let Some(path) = output else { return Ok(0) };
    let document = json!({
        "dump": facts.id, "database": facts.database, "format": facts.dump_format.name(), "path": path,
        "data_bytes": facts.data_bytes,
    });
    context.output.result(&document, || {
        let of = called(facts.content, &facts.database);
        format!(
            "{} has dump {} of {of} ({}, {})",
            path.display(),
            facts.id,
            facts.dump_format,
            bytes(facts.data_bytes)
        )
    })?;
    Ok(0)
}
