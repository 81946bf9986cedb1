//! New archives.

use std::path::Path;

use serde_json::json;
use walarchive_core::archive::{Archive, ArchiveInfo};
use walarchive_core::cipher::age::{Identity, Recipient};
use walarchive_core::config::write_identity;
use walarchive_core::{Error, Result};

use crate::args::InitArgs;
use crate::run::Context;

/// `init`
pub(crate) async fn init(context: Context, args: InitArgs) -> Result<u8> {
    let settings = &context.settings;
    let mut recipients = named(&args.recipient)?;
    if !args.no_encryption && recipients.is_empty() && args.generate_identity.is_none() {
        recipients = settings.keys()?.recipients;
        if recipients.is_empty() {
            return Err(Error::usage("nobody could read this archive: no recipient is set").hint(
                "--generate-identity FILE makes a key, --recipient age1… names one, --no-encryption does without",
            ));
        }
    }
    let storage = settings.new_storage(&context.each_patient()?).await?;
    if let Some(file) = &args.generate_identity
        && ArchiveInfo::find(storage.as_ref()).await?.is_none()
    {
        recipients.push(generated(file)?);
    }
    let url = settings.archive_url()?;
    let made = Archive::init(storage.as_ref(), !args.no_encryption).await;
    let (info, new) = made.map_err(|error| error.during(format!("making the archive {url}")))?;
    let recipients: Vec<_> = recipients.iter().map(ToString::to_string).collect();
    let document = json!({
        "archive": url, "id": info.id(), "created": new, "encrypted": info.encrypted(), "recipients": recipients,
    });
    context.output.result(&document, || match (new, info.encrypted()) {
        (false, _) => format!("the archive {url} is there already; nothing was changed"),
        (true, false) => format!("made the archive {url}; it is not encrypted"),
        (true, true) => format!(
            "made the encrypted archive {url}\non every host that writes, set WALARCHIVE_RECIPIENTS='{}'",
            recipients.join(" ")
        ),
    })?;
    if let Some(file) = args.generate_identity.filter(|_| new) {
        let file = file.display();
        context.output.warning(&format!(
            "keep a copy of {file} elsewhere: without it nobody can ever read this archive"
        ));
    }
    Ok(0)
}

/// The recipients that flags name. Never repeats what was given.
pub(crate) fn named(recipients: &[String]) -> Result<Vec<Recipient>> {
    let parse = |text: &String| {
        text.parse().map_err(|error: Error| Error::usage("--recipient cannot be used").because(error))
    };
    recipients.iter().map(parse).collect()
}

pub(crate) fn generated(file: &Path) -> Result<Recipient> {
    let identity = Identity::generate()?;
    write_identity(file, &identity)?;
    Ok(identity.recipient())
}
