//! Copies of the archive.

use std::sync::Arc;

use serde_json::json;
use walarchive_core::archive::{Archive, Keys};
use walarchive_core::cipher::age::parse_recipients;
use walarchive_core::config::Settings;
use walarchive_core::ops::copy::{CopyRequest, KeptRules, Lag, Wanted, copy, destination, lag, since};
use walarchive_core::{Error, Kind, Result};

use crate::args::{CopyArgs, CopyKind};
use crate::output::{bytes, many};
use crate::run::Context;

/// `copy`
pub(crate) async fn run(context: Context, args: CopyArgs) -> Result<u8> {
    let from_settings = args.from.as_deref().map(|url| context.settings.with_archive(url));
    let to_settings = args.to.as_deref().map(|url| context.settings.with_archive(url));
    if from_settings.is_none() && to_settings.is_none() {
        return Err(Error::usage("a copy goes from one archive to another")
            .hint("name one of them with --from or --to"));
    }
    let patience = context.each_patient()?;
    let from_settings = from_settings.as_ref().unwrap_or(&context.settings);
    let from = from_settings.archive(&patience).await?;
    let to_settings = to_settings.as_ref().unwrap_or(&context.settings);
    let (from_url, to_url) = (from_settings.archive_url()?, to_settings.archive_url()?);
    let to = open_destination(&context, to_settings, &from, &args)
        .await
        .map_err(|error| error.during(format!("opening the copy {to_url}")))?;
    let request = CopyRequest {
        from,
        to,
        cluster: context.settings.named_cluster()?,
        wanted: wanted(&context, &args)?,
        reseal: !args.recipient.is_empty(),
        jobs: usize::from(args.jobs),
        progress: Arc::clone(&context.progress),
    };
    if args.dry_run {
        let Lag { objects, bytes: size, .. } = lag(&request).await?;
        let document =
            json!({ "from": from_url, "to": to_url, "dry_run": true, "objects": objects, "bytes": size });
        context
            .output
            .result(&document, || format!("{} would be copied, {}", many(objects, "object"), bytes(size)))?;
        return Ok(0);
    }
    let done = copy(&request).await?;
    let mut document = json!({ "from": from_url, "to": to_url, "ok": done.problems.each.is_empty() });
    if let (Some(document), Ok(serde_json::Value::Object(done))) =
        (document.as_object_mut(), serde_json::to_value(&done))
    {
        document.extend(done);
    }
    context.output.result(&document, || {
        let whole = match done.manifests.len() as u64 {
            0 => String::new(),
            count => format!(", {count} backups and dumps are complete with that"),
        };
        format!(
            "{} copied, {}{whole}; {} were there",
            many(done.objects, "object"),
            bytes(done.bytes),
            done.there
        )
    })?;
    context.output.troubles(&done.problems);
    Ok(done.problems.gravest.map_or(0, |error| error.kind().exit_code()))
}

fn wanted(context: &Context, args: &CopyArgs) -> Result<Wanted> {
    let all = args.only.is_empty();
    let has = |kind| all || args.only.contains(&kind);
    Ok(Wanted {
        wal: has(CopyKind::Wal),
        backups: has(CopyKind::Backups),
        dumps: has(CopyKind::Dumps),
        since: args.since.map(since).transpose()?,
        newest: args.newest,
        kept: args.kept.then(|| rules(context)).transpose()?,
    })
}

fn rules(context: &Context) -> Result<KeptRules> {
    let settings = &context.settings;
    let rules = KeptRules { backups: settings.retention()?, dumps: settings.dump_retention()? };
    if rules.backups.keeps_all() && rules.dumps.keeps_all() {
        return Err(Error::usage("no rule of retention is set, so --kept means nothing").hint(
            "set backup.keep_last, dump.keep_daily and the like; without --kept everything is copied",
        ));
    }
    Ok(rules)
}

async fn open_destination(
    context: &Context,
    to: &Settings,
    from: &Archive,
    args: &CopyArgs,
) -> Result<Archive> {
    let storage = to.new_storage(&context.each_patient()?).await?;
    let mut keys = to.keys()?;
    if !args.recipient.is_empty() {
        let recipients = parse_recipients(&args.recipient.join("\n"))
            .map_err(|error| Error::new(Kind::Usage, "the recipients cannot be used").because(error))?;
        keys = Keys { recipients, ..keys };
    }
    destination(storage, from, keys, !args.recipient.is_empty()).await
}
