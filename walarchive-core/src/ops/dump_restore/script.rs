//! Scripts of the user's that psql runs as one transaction: SQL alone. A command of psql could make it pass over errors.

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::files;

/// No script is longer: it is looked through as a whole.
const SCRIPT_MAX: u64 = 256 << 20;

/// Refuses what is no file, and any script that has commands of psql.
pub(super) fn check(path: &Path) -> Result<()> {
    if !path.is_file() {
        return Err(Error::usage(format!("{} is not a file with SQL", path.display())));
    }
    let text = files::read(path, SCRIPT_MAX)?;
    let Some(at) = command_in(&text) else { return Ok(()) };
    let line = 1 + text.iter().take(at).filter(|byte| **byte == b'\n').count();
    let word: Vec<u8> =
        text.iter().skip(at).take_while(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let word = String::from_utf8_lossy(&word).into_owned();
    Err(Error::usage(format!("{}, line {line}: {word:?} is no SQL, and is not run", path.display()))
        .hint("leave commands of psql out: with them, errors could pass unseen"))
}

/// What nobody can guess: psql takes its own commands again only from whoever knows it.
pub(super) fn key() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(Kind::Local, "the system gives no random numbers").because(error))?;
    Ok(blake3::hash(&random).to_hex().to_string())
}

/// Where the first backslash is that stands in no text, name or comment.
fn command_in(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        let behind =
            |end: &[u8]| find(rest.get(1..).unwrap_or_default(), end).map(|found| found + 1 + end.len());
        let len = match byte {
            b'\\' => return Some(at),
            b'\'' if is_escaping(text, at) => escaped(rest),
            b'\'' => behind(b"'"),
            b'"' => behind(b"\""),
            b'-' if rest.starts_with(b"--") => behind(b"\n"),
            b'/' if rest.starts_with(b"/*") => comment(rest),
            b'$' if !at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(is_of_word) => {
                dollars(rest)
            }
            _ => Some(1),
        };
        // What does not end goes on to the end of the script: psql sees it so, too.
        at += len.unwrap_or(rest.len());
    }
    None
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'$' || *byte >= 0x80
}

/// Whether a quote begins a text with escapes: `E'…'`.
fn is_escaping(text: &[u8], quote: usize) -> bool {
    let before = |back: usize| quote.checked_sub(back).and_then(|at| text.get(at));
    before(1).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e')) && !before(2).is_some_and(is_of_word)
}

/// The length of `'…\'…'`.
fn escaped(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'\\' => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The length of a comment, in which there may be others.
fn comment(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    loop {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        if rest.starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest.starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The length of `$tag$…$tag$`; one for a dollar that begins no such text.
fn dollars(text: &[u8]) -> Option<usize> {
    let tag = text
        .get(1..)
        .unwrap_or_default()
        .iter()
        .take_while(|byte| is_of_word(byte) && **byte != b'$')
        .count();
    let is_number = text.get(1).is_some_and(u8::is_ascii_digit);
    match text.get(..tag + 2).filter(|mark| mark.ends_with(b"$") && !is_number) {
        None => Some(1),
        Some(mark) => {
            find(text.get(mark.len()..).unwrap_or_default(), mark).map(|found| found + 2 * mark.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_psql_are_found_wherever_they_stand() {
        for script in [
            "\\set ON_ERROR_STOP 0",
            "select 1;\n  \\i other",
            "select 1 \\g",
            "select 'it''s' \\gexec",
            "select E'\\'' \\gset",
            "select \"a\\b\"; \\! id",
            "/* /* */ */ \\q",
            "-- quiet '\n\\q",
            "select $$ ' $$; \\c other",
            "select $a$ $$ $a$ \\g",
            "select $1 \\g",
            "select a$b$ \\g",
        ] {
            assert!(command_in(script.as_bytes()).is_some(), "{script}");
        }
    }

    #[test]
    fn sql_may_have_backslashes_in_texts_names_and_comments() {
        for script in [
            "update t set a = 'c:\\dir', b = E'\\'\\n', c = e'x\\\\' where d ~ '\\d'",
            "select \"odd\\name\" from t -- a \\ here",
            "/* \\set /* x */ \\q */ select 1",
            "create function f() returns text language sql as $body$ select '\\n' $body$",
            "do $$ begin raise notice '\\'; end $$",
            "select 'open \\",
        ] {
            assert_eq!(command_in(script.as_bytes()), None, "{script}");
        }
    }
}
