//! Identity files and lists of recipients.

use std::path::Path;

use super::{Identity, PREFIX, Recipient};
use crate::cipher::private;
use crate::error::{Error, Kind, Result};

/// Reads the text of an identity file as `age-keygen` writes it: one `AGE-SECRET-KEY-1…` a line, blank lines
/// and lines that begin with `#` between them. Line ends may be CRLF.
///
/// A text without any identity, or with anything else in it, is [`Kind::Key`]; the message names the line
/// and keeps its content.
pub fn parse_identities(text: &str) -> Result<Vec<Identity>> {
    let mut identities = Vec::new();
    for (number, line) in lines(text) {
        match line.parse() {
            Ok(identity) => identities.push(identity),
            Err(error) => return Err(other_identity(number, line).unwrap_or_else(|| at_line(number, error))),
        }
    }
    if identities.is_empty() {
        return Err(Error::new(Kind::Key, "reading age identities: there is none in it")
            .hint("make one with `walarchive key generate` or `age-keygen`"));
    }
    Ok(identities)
}

/// Reads recipients (`age1…`), one a line or with white space between them; `#` begins a comment that ends
/// with the line. A recipient that is named twice is given once; a text without any gives none.
///
/// Anything else is [`Kind::Key`]; the message names the line and keeps its content, which might be a secret
/// that was put in the wrong place.
pub fn parse_recipients(text: &str) -> Result<Vec<Recipient>> {
    let mut recipients: Vec<Recipient> = Vec::new();
    for (number, line) in lines(text) {
        for word in line.split_whitespace().take_while(|word| !word.starts_with('#')) {
            let recipient = word.parse().map_err(|error| at_line(number, error))?;
            if !recipients.contains(&recipient) {
                recipients.push(recipient);
            }
        }
    }
    Ok(recipients)
}

/// Reads an identity file that only its owner can read.
///
/// [`Kind::Key`] when it is missing, is not a regular file (nothing else is opened, so this never waits for
/// a FIFO), is readable by its group or others, is longer than 64 KiB, or as
/// [`parse_identities`] says.
pub fn read_identity_file(path: &Path) -> Result<Vec<Identity>> {
    private::read(
        path,
        "name the file that holds the age identity; a new key opens nothing that was written before",
    )
    .and_then(|bytes| parse_bytes(&bytes))
    .map_err(|error| error.during("reading the identity file").on(path.display()))
}

fn parse_bytes(bytes: &[u8]) -> Result<Vec<Identity>> {
    if bytes.starts_with(PREFIX) {
        return Err(encrypted());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Key, "it is not text, so it holds no age identity"))?;
    parse_identities(text)
}

fn encrypted() -> Error {
    Error::new(Kind::Key, "it is encrypted itself, and no passphrase can be asked for here")
        .hint("decrypt it with `age -d` into a file that only its owner can read")
}

/// The lines that say something, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The error for a line that is something else that people keep in such files.
fn other_identity(number: usize, line: &str) -> Option<Error> {
    let found = if line.starts_with("age-encryption.org/") || line.starts_with("-----BEGIN AGE ENCRYPTED") {
        return Some(at_line(number, encrypted()));
    } else if line.starts_with("AGE-PLUGIN-") {
        "identities of age plugins are not supported"
    } else if line.starts_with("AGE-SECRET-KEY-PQ-") {
        "hybrid post-quantum identities are not supported"
    } else if line.starts_with("-----BEGIN ") || line.starts_with("ssh-") {
        "ssh keys are not supported"
    } else if line.starts_with("age1") {
        "this is a recipient, which is public and cannot open anything"
    } else {
        return None;
    };
    let error = Error::new(Kind::Key, format!("reading an age identity: {found}"));
    Some(at_line(number, error.hint("use an X25519 identity as `age-keygen` makes it (AGE-SECRET-KEY-1…)")))
}

fn at_line(number: usize, error: Error) -> Error {
    error.during(format!("line {number}"))
}
