//! Base backups.

use serde_json::{Value, json};
use walarchive_core::archive::{Backup, BackupId, Census, Facts, Share, scan};
use walarchive_core::ops::backup::{BackupRequest, create as make};
use walarchive_core::ops::pin as pins;
use walarchive_core::ops::prune::delete as deletion;
use walarchive_core::ops::restore::{ExtractRequest, extract as take_out};
use walarchive_core::{Error, Kind, Result};

use crate::args::{CreateArgs, ExtractArgs};
use crate::output::{bytes, many, table};
use crate::run::Context;

fn told(backup: &Backup, share: Option<Share>) -> String {
    let facts = &backup.facts;
    let mut lines = vec![
        format!("backup      {} ({}{})", facts.id, facts.kind, if backup.pinned { ", pinned" } else { "" }),
        format!(
            "cluster     {} (system identifier {}, PostgreSQL {}{})",
            facts.cluster,
            facts.system_id,
            facts.server_version,
            if facts.from_standby { ", from a standby" } else { "" }
        ),
        format!("from        {}  {}  timeline {}", facts.started_at, facts.start_lsn, facts.timeline),
        format!("to          {}  {}", facts.finished_at, facts.stop_lsn),
        format!(
            "size        {} in {} files, stored {}",
            bytes(facts.data_bytes),
            facts.files,
            bytes(facts.stored_bytes)
        ),
    ];
    if let Some(Share { unique, shared }) = share {
        lines.push(format!(
            "needs       {} alone, {} together with other backups",
            bytes(unique),
            bytes(shared)
        ));
    }
    lines.extend(facts.tablespaces.iter().map(|t| format!("tablespace  {} {}", t.oid, t.location.display())));
    lines.extend(facts.labels.iter().map(|(key, value)| format!("label       {key}={value}")));
    if facts.damaged_pages > 0 {
        lines.push(format!(
            "damaged     {} pages failed their checksum when the backup was taken",
            facts.damaged_pages
        ));
    }
    lines.join("\n")
}

/// `backup create`. A backup that holds damaged pages is kept, and is a failure all the same: exit 4.
pub(crate) async fn create(context: Context, args: CreateArgs) -> Result<u8> {
    let settings = &context.settings;
    let request = BackupRequest {
        archive: context.archive().await?,
        cluster: settings.cluster()?,
        connection: settings.connection(),
        data_dir: settings.data_dir(),
        codec: settings.backup_codec()?,
        jobs: usize::from(args.jobs),
        fast_checkpoint: !args.spread_checkpoint,
        wal_wait: settings.wal_wait()?,
        lease: settings.backup_lease()?,
        state_dir: Some(settings.state_dir()),
        full: args.full,
        full_every: settings.full_every()?,
        labels: args.labels.into_iter().collect(),
        pin: args.pin,
        progress: context.progress.clone(),
    };
    let done = make(request).await?;
    let mut document = done.backup.document(None);
    document["read_bytes"] = Value::from(done.read_bytes);
    let damaged: Vec<_> =
        done.damaged.iter().map(|(file, block)| json!({ "file": file, "block": block })).collect();
    if !damaged.is_empty() {
        document["damaged"] = Value::from(damaged);
    }
    context.output.report(&document, || told(&done.backup, None))?;
    if done.damaged.is_empty() {
        return Ok(0);
    }
    context.output.warning(&format!(
        "backup {} is stored, but {} pages of the cluster fail their checksum: they are damaged on this server's disk, see above; \
         restore them from an older backup",
        done.backup.id, done.backup.facts.damaged_pages
    ));
    Ok(Kind::Damaged.exit_code())
}

/// `backup list`. A damaged backup does not hide the others; it is told, and makes the exit code 4.
pub(crate) async fn list(context: Context) -> Result<u8> {
    let archive = context.archive().await?;
    let census = match context.catalog(&archive).await {
        Ok(catalog) => catalog.census().await?,
        Err(error) if error.kind() == Kind::Absent => Default::default(),
        Err(error) => return Err(error),
    };
    let damaged = &census.damaged;
    let entries = census.backups.iter().map(|backup| backup.document(census.share(&backup.id)));
    let mut document = json!({ "backups": entries.collect::<Vec<_>>() });
    if !damaged.is_empty() {
        let problem = |(id, error): &(BackupId, Error)| json!({ "kind": "damaged", "object": id.as_str(), "detail": error.story() });
        document["problems"] = damaged.iter().map(problem).collect();
    }
    context.output.result(&document, || shown(&census))?;
    for (id, error) in damaged {
        context.output.warning(&format!("backup {id} cannot be restored: {}", error.story()));
    }
    Ok(if damaged.is_empty() { 0 } else { Kind::Damaged.exit_code() })
}

fn shown(census: &Census) -> String {
    if census.backups.is_empty() {
        return "no backups are stored".to_owned();
    }
    let row = |backup: &Backup| {
        let (facts, share) = (&backup.facts, census.share(&backup.id));
        let known =
            |of: fn(&Share) -> u64| share.as_ref().map_or("unknown".to_owned(), |share| bytes(of(share)));
        vec![
            facts.id.clone(),
            facts.kind.clone(),
            facts.finished_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            facts.stop_lsn.to_string(),
            facts.timeline.to_string(),
            bytes(facts.data_bytes),
            bytes(facts.stored_bytes),
            known(|share| share.unique),
            known(|share| share.shared),
            if backup.pinned { "pinned".to_owned() } else { String::new() },
        ]
    };
    let rows: Vec<_> = census.backups.iter().map(row).collect();
    table(
        &["backup", "kind", "restorable from", "LSN", "timeline", "size", "stored", "unique", "shared", ""],
        &rows,
    )
}

/// `backup show`. Reads the whole manifest: what is shown is proven.
pub(crate) async fn show(context: Context, id: BackupId) -> Result<u8> {
    let archive = context.archive().await?;
    let catalog = context.catalog(&archive).await?;
    let backup = catalog.backup(&id).await?;
    scan::<Facts, _>(&catalog.archive, &catalog.place, &id, ()).await?;
    let share = catalog.census().await?.share(&id);
    context.output.result(&backup.document(share), || match share {
        Some(_) => told(&backup, share),
        None => format!(
            "{}\nneeds       unknown, as the manifest of another backup is damaged",
            told(&backup, share)
        ),
    })?;
    Ok(0)
}

/// `backup extract`
pub(crate) async fn extract(context: Context, args: ExtractArgs) -> Result<u8> {
    let archive = context.archive().await?;
    let request = ExtractRequest {
        catalog: context.catalog(&archive).await?,
        id: args.id.clone(),
        paths: args.paths,
        target_dir: args.target_dir.clone(),
        jobs: usize::from(args.jobs),
        progress: context.progress.clone(),
    };
    let done = take_out(request).await?;
    let document = json!({
        "backup": args.id.as_str(), "target_dir": args.target_dir, "files": done.files, "bytes": done.bytes,
    });
    context.output.result(&document, || {
        let (files, dir) = (done.files.len(), args.target_dir.display());
        format!("{files} files, {}, of backup {} are in {dir}", bytes(done.bytes), args.id)
    })?;
    Ok(0)
}

/// `backup pin` and `backup unpin`
pub(crate) async fn pin(context: Context, id: BackupId, pinned: bool) -> Result<u8> {
    let archive = context.archive().await?;
    let catalog = context.catalog(&archive).await?;
    if pinned {
        pins::pin(&catalog, &id).await?;
    } else {
        pins::unpin(&catalog, &id).await?;
    }
    let is = if pinned { "pinned" } else { "not pinned" };
    context
        .output
        .result(&json!({ "id": id.as_str(), "pinned": pinned }), || format!("backup {id} is {is}"))?;
    Ok(0)
}

/// `backup delete`
pub(crate) async fn delete(context: Context, id: BackupId, yes: bool, even_the_last: bool) -> Result<u8> {
    let archive = context.archive().await?.strict();
    let catalog = context.catalog(&archive).await?;
    let ids = [id.clone()].into();
    if !even_the_last {
        deletion::refuse_the_last(&catalog.inventory().await?, &ids)?;
    }
    let plan = deletion::plan(&catalog, &ids).await?;
    let stored: u64 = plan.packs.iter().map(|(_, size)| size).sum();
    let done = if yes { Some(deletion::run(&catalog, &plan).await?) } else { None };
    let running = done.and_then(|done| done.running);
    let document = json!({
        "id": id.as_str(), "deleted": yes, "packs": plan.packs.len(), "stored_bytes": stored, "shared_packs": plan.shared,
        "packs_left": if running.is_some() { plan.packs.len() } else { 0 },
    });
    context.output.result(&document, || {
        let packs = format!("{}, {}", many(plan.packs.len(), "pack"), bytes(stored));
        if yes {
            format!("deleted backup {id} ({packs})")
        } else {
            format!("would delete backup {id} ({packs}); --yes does it")
        }
    })?;
    if let Some(lease) = running {
        context.output.warning(&format!(
            "its packs ({}) stay for now: backup {} may be running until {} and need them; 'walarchive prune --yes' removes them then",
            plan.packs.len(), lease.backup, lease.until
        ));
    }
    Ok(0)
}
