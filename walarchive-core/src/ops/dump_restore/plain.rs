//! Scripts to psql.

use std::io::{ErrorKind, Write};
use std::process::{ChildStdin, Stdio};

use super::told;
use crate::archive::StreamsReader;
use crate::error::{Error, Kind, Result};
use crate::postgres::client::{Client, failed};
use crate::postgres::stop::Stop;
use crate::postgres::{libpq, programs};
use crate::progress::Progress;

/// A script begins with comments and, since 2025, a line that forbids commands of psql within it.
const HEAD: usize = 4096;
const RESTRICT: &str = "\\restrict ";

/// pg_dump of version 17 and later sets it, whatever server it dumps; older servers do not know it.
const NEWER_SETTING: &[u8] = b"\nSET transaction_timeout = 0;\n";
const KNOWN_SINCE: u32 = 17;

/// The beginning of a script without the setting that the server does not know.
fn without_newer_setting(head: &mut Vec<u8>) {
    let found = head.windows(NEWER_SETTING.len()).position(|window| window == NEWER_SETTING);
    if let Some(at) = found {
        head.drain(at + 1..at + NEWER_SETTING.len());
    }
}

/// Changes a script in its first bytes, which may come in pieces.
struct Head {
    held: Vec<u8>,
    is_open: bool,
}

impl Head {
    fn of_server(major: u32) -> Head {
        Head { held: Vec::new(), is_open: major < KNOWN_SINCE }
    }

    fn write(&mut self, bytes: &[u8], input: &mut ChildStdin) -> std::io::Result<()> {
        if !self.is_open {
            return input.write_all(bytes);
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() < HEAD { Ok(()) } else { self.end(input) }
    }

    fn end(&mut self, input: &mut ChildStdin) -> std::io::Result<()> {
        self.is_open = false;
        without_newer_setting(&mut self.held);
        input.write_all(&std::mem::take(&mut self.held))
    }
}

/// Gives a script to psql, for a server of this major version; whoever stops reading says why by itself.
fn give_script(
    reader: &StreamsReader,
    mut input: ChildStdin,
    major: u32,
    stop: &Stop,
    progress: &dyn Progress,
) -> Result<()> {
    let mut head = Head::of_server(major);
    give_with(reader, stop, progress, |bytes| match bytes {
        Some(bytes) => head.write(bytes, &mut input),
        None => head.end(&mut input),
    })
}

/// Gives a dump's one stream to a program; whoever stops reading says why by itself.
pub(super) fn give(
    reader: &StreamsReader,
    mut input: ChildStdin,
    stop: &Stop,
    progress: &dyn Progress,
) -> Result<()> {
    give_with(reader, stop, progress, |bytes| bytes.map_or(Ok(()), |bytes| input.write_all(bytes)))
}

/// Hands the bytes to `write`, and nothing at their end.
fn give_with(
    reader: &StreamsReader,
    stop: &Stop,
    progress: &dyn Progress,
    mut write: impl FnMut(Option<&[u8]>) -> std::io::Result<()>,
) -> Result<()> {
    let [stream] = reader.streams() else {
        return Err(Error::damaged("a dump in one file has several streams"));
    };
    let mut is_open = true;
    reader.read(stream, &mut |bytes| {
        progress.advance(bytes.len() as u64)?;
        stop.check()?;
        if !is_open {
            return Ok(());
        }
        match write(Some(bytes)) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                // The rest is read all the same: whether the dump holds is worth knowing.
                is_open = false;
                Ok(())
            }
            written => written.map_err(|error| Error::io("cannot hand the dump over", error)),
        }
    })?;
    match write(None) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("cannot hand the dump over", error))
        }
        _ => Ok(()),
    }
}

/// Runs a script in a database. Commands of psql that are not pg_dump's own are refused, where psql knows how to.
pub(super) fn fill(
    client: &Client,
    reader: &StreamsReader,
    database: &str,
    major: u32,
    allow_errors: bool,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    refuse_unrestricted(client, reader)?;
    let mut command = client.command("psql")?;
    let stop = if allow_errors { "ON_ERROR_STOP=0" } else { "ON_ERROR_STOP=1" };
    command.args(["-X", "-q", "-v", stop, "-d"]).arg(libpq::dbname(database)).args(["-f", "-"]);
    let mut running = client.start(&mut command, Stdio::piped())?;
    let input = running.input()?;
    let given = std::thread::scope(|scope| {
        let giving = scope.spawn(|| give_script(reader, input, major, client.stop(), progress));
        let drained = running.drain();
        let given = giving.join().unwrap_or_else(|_| Err(Error::bug("handing a dump over stopped")));
        drained.and(given)
    });
    if let Err(error) = &given
        && matches!(error.kind(), Kind::Damaged | Kind::Key)
    {
        drop(running);
        return given.map(|()| Vec::new());
    }
    let (status, complaints) = running.wait()?;
    if !status.success() {
        return Err(failed("psql", status, &complaints));
    }
    given?;
    Ok(told(&complaints))
}

/// A script without pg_dump's own restriction could make psql run programs: by a name that was made for that. Where psql
/// knows the restriction, scripts that lack it are refused.
fn refuse_unrestricted(client: &Client, reader: &StreamsReader) -> Result<()> {
    let made_by = &reader.manifest.facts.dump_version;
    if !programs::restricts(made_by) || !programs::restricts(&client.programs().version) {
        return Ok(());
    }
    let [stream] = reader.streams() else { return Ok(()) };
    let mut head = Vec::new();
    let enough = "enough was seen";
    let read = reader.read(stream, &mut |bytes| {
        head.extend_from_slice(bytes.get(..bytes.len().min(HEAD)).unwrap_or_default());
        if head.len() >= HEAD { Err(Error::bug(enough)) } else { Ok(()) }
    });
    if let Err(error) = read
        && !error.story().contains(enough)
    {
        return Err(error);
    }
    let text = String::from_utf8_lossy(&head);
    let restricts = text.lines().find(|line| !line.is_empty() && !line.starts_with("--"));
    match restricts {
        Some(line) if line.starts_with(RESTRICT) => Ok(()),
        _ => Err(Error::damaged(
            "the script does not begin as pg_dump writes it: commands of psql in it could do anything on this machine",
        )
        .hint("look at it with 'walarchive dump export'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_setting_is_left_out_and_nothing_else() {
        let cleaned = |text: &str| {
            let mut head = text.as_bytes().to_vec();
            without_newer_setting(&mut head);
            String::from_utf8(head).unwrap()
        };
        let script = "SET lock_timeout = 0;\nSET transaction_timeout = 0;\nSELECT 1;\n";
        assert_eq!(cleaned(script), "SET lock_timeout = 0;\nSELECT 1;\n");
        let other = "COMMENT IS 'SET transaction_timeout = 0;';\n";
        assert_eq!(cleaned(other), other);
    }
}
