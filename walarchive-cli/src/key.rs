//! Keys: of readers and of writers.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use walarchive_core::archive::{Archive, Rotation};
use walarchive_core::cipher::age::{Identity, Recipient, read_identity_file};
use walarchive_core::cipher::writer::{WriterKey, read_writer_key_file};
use walarchive_core::config::{write_identity, write_writer_key};

use walarchive_core::ops::rotate::{RotateRequest, rotate as rotate_all};
use walarchive_core::{Error, Result};

use crate::args::RotateArgs;
use crate::init::named;
use crate::output::{bytes, many};
use crate::run::Context;

/// `key generate`
pub(crate) fn generate(context: &Context, file: Option<&Path>, writer: bool) -> Result<u8> {
    match writer {
        true => {
            let key = WriterKey::generate()?;
            let (public, secret) = (key.writer().to_string(), key.to_secret_string());
            made(context, ["writer", "writer_key"], file, &public, &secret, |file| {
                write_writer_key(file, &key)
            })
        }
        false => {
            let key = Identity::generate()?;
            let (public, secret) = (key.recipient().to_string(), key.to_secret_string());
            made(context, ["recipient", "identity"], file, &public, &secret, |file| {
                write_identity(file, &key)
            })
        }
    }
}

fn made(
    context: &Context,
    [public_name, secret_name]: [&str; 2],
    file: Option<&Path>,
    public: &str,
    secret: &str,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<u8> {
    let mut document = json!({ public_name: public });
    let text = match file {
        Some(file) => {
            write(file)?;
            document[format!("{secret_name}_file")] = json!(file);
            public.to_owned()
        }
        None => {
            document[secret_name] = Value::from(secret);
            format!("# public key: {public}\n{secret}")
        }
    };
    context.output.result(&document, || text)?;
    Ok(0)
}

/// `key show`
pub(crate) fn show(context: &Context, file: &Path) -> Result<u8> {
    if let Ok(key) = read_writer_key_file(file) {
        let writer = key.writer().to_string();
        context.output.result(&json!({ "writer": writer }), || writer.clone())?;
        return Ok(0);
    }
    let recipients: Vec<_> =
        read_identity_file(file)?.iter().map(|key| key.recipient().to_string()).collect();
    context.output.result(&json!({ "recipients": recipients }), || recipients.join("\n"))?;
    Ok(0)
}

/// `key rotate`
pub(crate) async fn rotate(context: Context, args: RotateArgs) -> Result<u8> {
    let mut keys = context.settings.keys()?;
    if !args.recipient.is_empty() {
        keys.recipients = named(&args.recipient)?;
    }
    if args.sign_unsigned && keys.writer.is_none() {
        return Err(Error::usage("there is no key to sign with")
            .hint("set encryption.writer_key_file; 'walarchive key generate --writer' makes a key"));
    }
    let recipients: Vec<String> = keys.recipients.iter().map(Recipient::to_string).collect();
    let url = context.settings.archive_url()?;
    let storage = context.settings.storage(&context.each_patient()?).await?;
    let archive = Archive::open(storage, keys).await;
    let request = RotateRequest {
        archive: archive.map_err(|error| error.during(format!("opening the archive {url}")))?,
        cluster: context.settings.named_cluster()?,
        rotation: Rotation { sign: args.sign_unsigned, dry_run: args.dry_run },
        jobs: usize::from(args.jobs),
        progress: Arc::clone(&context.progress),
    };
    let done = rotate_all(&request).await?;
    let document = json!({
        "archive": url, "recipients": recipients, "dry_run": args.dry_run, "ok": done.problems.each.is_empty(), "objects": done.objects,
        "bytes": done.bytes, "current": done.current, "signed": done.signed, "problems": done.problems,
    });
    context.output.result(&document, || {
        let were = if args.dry_run { "would be stored anew" } else { "stored anew" };
        let objects = many(done.objects, "object");
        format!(
            "{objects} {were} for {}, {}; {} were so already",
            recipients.join(" "),
            bytes(done.bytes),
            done.current
        )
    })?;
    for key in &done.signed {
        context.output.info(&format!("{}: {key}", if args.dry_run { "would be signed" } else { "signed" }));
    }
    context.output.troubles(&done.problems);
    if !args.dry_run && !args.recipient.is_empty() {
        let recipients = recipients.join(" ");
        context
            .output
            .warning(&format!("on every host that writes, set WALARCHIVE_RECIPIENTS='{recipients}' now"));
    }
    Ok(done.problems.gravest.map_or(0, |error| error.kind().exit_code()))
}
