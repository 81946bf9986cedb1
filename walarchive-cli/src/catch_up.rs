//! Mirrors brought to what the others have.

use walarchive_core::ops::catch_up::all;
use walarchive_core::{Error, Result};

use crate::output::{bytes, many};
use crate::run::Context;

/// `catch-up`
pub(crate) async fn catch_up(context: Context) -> Result<u8> {
    let archive = context.archive().await?;
    if !archive.is_mirrored() {
        return Err(Error::usage("only one archive is named, there is no mirror to catch up")
            .hint("name the primary and its mirrors in 'archive'"));
    }
    let notes = context.settings.notes();
    let done = all(&archive, &notes, context.progress.as_ref()).await;
    context.output.result(&done, || {
        let line = |mirror: &walarchive_core::ops::catch_up::MirrorCaughtUp| {
            format!("{}: {} copied, {}", mirror.archive, many(mirror.objects, "object"), bytes(mirror.bytes))
        };
        done.mirrors.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    for problem in &done.problems {
        context.output.warning(problem);
    }
    Ok(done.error.map_or(0, |error| error.kind().exit_code()))
}
