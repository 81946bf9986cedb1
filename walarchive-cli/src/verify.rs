//! Proving what is stored.

use std::sync::Arc;

use walarchive_core::archive::{Archive, BackupId};
use walarchive_core::ops::verify::{
    Problem, Promise, PutBack, Verified, VerifyRequest, put_back_descriptions, verify,
};
use walarchive_core::{Error, Kind, Result};

use crate::args::VerifyArgs;
use crate::output::{Output, bytes, many, table};
use crate::run::Context;

/// `verify`
pub(crate) async fn run(context: Context, args: VerifyArgs) -> Result<u8> {
    let (repair_from, put_back) = match &args.repair_from {
        Some(url) => {
            let other = other(&context, url).await?;
            let storage = context.settings.storage(&context.each_patient()?).await?;
            let put_back = put_back_descriptions(&storage, &other).await?;
            (Some(other), put_back)
        }
        None => (None, PutBack::default()),
    };
    let archive = context.archive().await?;
    let only = match args.backup.as_deref() {
        Some("latest") => Some(latest(&context, &archive).await?),
        Some(id) => Some(id.parse()?),
        None => None,
    };
    let request = VerifyRequest {
        archive,
        name: context.settings.archive_url()?,
        cluster: context.settings.cluster()?,
        system: context.settings.system_id()?,
        deep: args.deep || args.fraction.is_some(),
        only,
        share: args.fraction,
        memory: Some(context.settings.state_dir()),
        repair_from,
        jobs: usize::from(args.jobs),
        progress: Arc::clone(&context.progress),
    };
    let mut found = verify(&request).await?;
    found.repaired.splice(0..0, put_back.repaired);
    found.notes.splice(0..0, put_back.notes);
    context.output.result(&found.document(request.deep), || told(&found, request.deep))?;
    tell_problems(context.output, &found);
    Ok(found.kind().map_or(0, Kind::exit_code))
}

/// Another copy of the archive, with the same settings and keys.
async fn other(context: &Context, url: &str) -> Result<Archive> {
    let settings = context.settings.with_archive(url);
    settings.archive(&context.each_patient()?).await
}

/// The newest backup. Without an identity its name is all that there is to go by.
async fn latest(context: &Context, archive: &Archive) -> Result<BackupId> {
    let catalog = context.catalog_of(archive, context.settings.system_id()?).await?;
    let newest = match archive.can_open() {
        true => catalog.inventory().await?.newest().cloned(),
        false => catalog.marks().await?.manifests.pop_last(),
    };
    newest.ok_or_else(|| {
        Error::new(Kind::Absent, "the archive holds no backup of this cluster")
            .hint("'walarchive backup create' makes one; --backup ID names a dump")
    })
}

fn tell_problems(output: Output, found: &Verified) {
    for note in &found.notes {
        output.info(note);
    }
    for Problem { kind, object, detail, endangers, archive } in &found.problems {
        let place = if archive.is_empty() { String::new() } else { format!(" in {archive}") };
        let endangers = match endangers.len() {
            0 => "nothing needs it".to_owned(),
            1..=3 => format!("it endangers {}", endangers.join(", ")),
            more => format!("it endangers {} and {} more", endangers[..2].join(", "), more - 2),
        };
        output.warning(&format!("{kind}: {object}{place}: {detail}; {endangers}"));
    }
    if let Some(error) = &found.broken_off {
        output.problem(error);
    }
}

fn told(found: &Verified, deep: bool) -> String {
    let mut lines = Vec::new();
    if !found.backups.is_empty() {
        let rows: Vec<Vec<String>> = found.backups.iter().map(row).collect();
        lines.push(table(&["backup", "restorable", "from", "to"], &rows));
    }
    let broken: Vec<_> = found.dumps.iter().filter(|dump| !dump.restorable).collect();
    if !found.dumps.is_empty() {
        lines.push(format!(
            "{} of {} can be restored",
            found.dumps.len() - broken.len(),
            many(found.dumps.len(), "dump")
        ));
        lines.extend(
            broken.iter().map(|dump| format!("dump {} of {:?} cannot be restored", dump.id, dump.database)),
        );
    }
    lines.extend(
        found.repaired.iter().map(|problem| format!("repaired: {} was {}", problem.object, problem.kind)),
    );
    let read = match (deep, found.opened) {
        (true, true) => format!("{} were read, opened and proven{}", bytes(found.bytes), signed(found)),
        (true, false) => format!(
            "contents were not opened, as there is no identity: heads and lengths hold{}",
            signed(found)
        ),
        (false, true) => "names, gaps and manifests; --deep reads all bytes".to_owned(),
        (false, false) => {
            "names, gaps and the heads of manifests; contents were not opened, as there is no identity"
                .to_owned()
        }
    };
    let objects = found.objects;
    lines.push(match (found.problems.len(), &found.broken_off) {
        (0, None) => format!("nothing is wrong with {objects} objects: {read}"),
        (0, Some(_)) => format!("{objects} objects could not all be looked at"),
        (1, _) => format!("1 problem in {objects} objects: {read}"),
        (several, _) => format!("{several} problems in {objects} objects: {read}"),
    });
    lines.join("\n")
}

fn row(promise: &Promise) -> Vec<String> {
    let to = promise.leads_to.iter().max_by_key(|stretch| stretch.timeline);
    let to = to.map(|stretch| format!("{} (timeline {})", stretch.to_lsn, stretch.timeline));
    vec![
        promise.id.clone(),
        if promise.restorable { "yes" } else { "NO" }.to_owned(),
        promise.from.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        to.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn signed(found: &Verified) -> &'static str {
    if found.signatures { ", and trusted writers signed them" } else { "" }
}
