//! What a server notes of itself in its data directory: what it was started with, and where it listens.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// Neither file is longer.
const NOTES_MAX: u64 = 1 << 20;

/// Where the new cluster comes from and goes to is said by who restores it.
const OF_RECOVERY: [&str; 3] = ["data_directory", "restore_command", "recovery_target"];
/// On the command line these are stronger than what holds archiving back.
const OF_ARCHIVING: [&str; 2] = ["archive_command", "archive_library"];

/// What the server of a data directory was last started with, apart from its data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<String>);

impl Options {
    /// As its `postmaster.opts` says; none where there is no such file.
    pub fn of(data_dir: &Path) -> Result<Options> {
        let path = data_dir.join("postmaster.opts");
        if !path.exists() {
            return Ok(Options::default());
        }
        let bytes = files::read(&path, NOTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| {
            let message = format!("{} is not text: the server's options are unknown", path.display());
            Error::usage(message).hint("restore_latest.start_command says how to start the server")
        })?;
        Ok(Options::parse(&text))
    }

    /// `/usr/lib/postgresql/15/bin/postgres "-D" "/data" "-p" "5433"`: nothing within the quotes is escaped.
    fn parse(text: &str) -> Options {
        let rest = text.trim_end_matches('\n').split_once(" \"").map(|(_, rest)| rest);
        let rest = rest.and_then(|rest| rest.strip_suffix('"'));
        Options(rest.map(|rest| rest.split("\" \"").map(str::to_owned).collect()).unwrap_or_default())
    }

    /// Without the data directory, and without the settings that are called so or begin so.
    fn without(&self, names: &[&str]) -> Options {
        let mut kept = Vec::new();
        let mut args = self.0.iter();
        while let Some(arg) = args.next() {
            let value = matches!(arg.as_str(), "-D" | "-c").then(|| args.next()).flatten();
            if arg.starts_with("-D") || setting(arg, value).is_some_and(|name| is_among(&name, names)) {
                continue;
            }
            kept.push(arg.clone());
            kept.extend(value.cloned());
        }
        Options(kept)
    }

    /// For the same server again.
    #[must_use]
    pub fn as_they_were(&self) -> Options {
        self.without(&[])
    }

    /// For a server that is about to recover.
    #[must_use]
    pub fn for_recovery(&self) -> Options {
        self.without(&OF_RECOVERY)
    }

    /// Whether they say what is archived how.
    pub fn archive(&self) -> bool {
        self.without(&[]) != self.without(&OF_ARCHIVING)
    }

    /// As a shell reads them, which is what pg_ctl hands them to; none where there are none.
    pub fn for_shell(&self) -> Option<String> {
        let quoted = |arg: &String| format!("'{}'", arg.replace('\'', r"'\''"));
        (!self.0.is_empty()).then(|| self.0.iter().map(quoted).collect::<Vec<_>>().join(" "))
    }
}

/// The name of the setting that an argument (and its value) makes.
fn setting(arg: &str, value: Option<&String>) -> Option<String> {
    let text = match (arg.strip_prefix("-c"), arg.strip_prefix("--")) {
        (Some(""), _) => value?.as_str(),
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => return None,
    };
    let name = text.split('=').next().unwrap_or(text);
    Some(name.trim().to_ascii_lowercase().replace('-', "_"))
}

fn is_among(name: &str, names: &[&str]) -> bool {
    names.iter().any(|begin| name.starts_with(begin))
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A directory with its socket, or a host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Place {
    /// That of the server of a data directory, as its `postmaster.pid` says; none where none is noted.
    pub fn of(data_dir: &Path) -> Option<Place> {
        let bytes = files::read(&data_dir.join("postmaster.pid"), NOTES_MAX).ok()?;
        Place::parse(&String::from_utf8(bytes).ok()?, data_dir)
    }

    fn parse(text: &str, data_dir: &Path) -> Option<Place> {
        let line = |number: usize| text.lines().nth(number).map(str::trim).filter(|line| !line.is_empty());
        let port = line(3)?.parse().ok()?;
        let host = match (line(4), line(5)) {
            (Some(socket), _) if socket.starts_with('@') => socket.to_owned(),
            // The server works in its data directory.
            (Some(socket), _) => data_dir.join(socket).to_str()?.to_owned(),
            (None, Some("*" | "0.0.0.0" | "::")) => "localhost".to_owned(),
            (None, Some(address)) => address.to_owned(),
            (None, None) => return None,
        };
        Some(Place { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        let quoted: String = args.iter().map(|arg| format!(" \"{arg}\"")).collect();
        Options::parse(&format!("/usr/lib/postgresql/15/bin/postgres{quoted}\n"))
    }

    fn kept(args: &[&str]) -> Vec<String> {
        options(args).for_recovery().0
    }

    #[test]
    fn options_are_read_as_the_server_notes_them() {
        assert_eq!(options(&[]), Options::default());
        let args = ["-D", "/my data", "-c", "search_path=\"$user\", public", "-p", "5433"];
        assert_eq!(options(&args).0, args);
        assert_eq!(Options::parse("nonsense"), Options::default());
        assert_eq!(Options::parse(""), Options::default());
    }

    #[test]
    fn what_belongs_to_the_old_directory_is_left_out() {
        assert_eq!(kept(&["-D", "data", "-k", "/run", "-p5433"]), ["-k", "/run", "-p5433"]);
        assert_eq!(kept(&["-Ddata", "-c", "config_file=/etc/x"]), ["-c", "config_file=/etc/x"]);
        assert_eq!(kept(&["-c", "restore_command=x", "--data-directory=y", "-F"]), ["-F"]);
        assert_eq!(kept(&["--Recovery_Target_Time=now", "-crecovery_target=immediate"]), [""; 0]);
        assert_eq!(kept(&["-c", "recovery_prefetch=off"]), ["-c", "recovery_prefetch=off"]);
        assert_eq!(kept(&["-c"]), ["-c"]);
    }

    #[test]
    fn archiving_on_the_command_line_is_seen() {
        assert!(options(&["-c", "archive_command=true"]).archive());
        assert!(options(&["--archive-library=x"]).archive());
        assert!(!options(&["-D", "archive_command=x", "-c", "archive_mode=off"]).archive());
    }

    #[test]
    fn a_shell_reads_what_it_was() {
        assert_eq!(Options::default().for_shell(), None);
        let shown = options(&["-c", "x='$a' \"b\""]).for_shell();
        assert_eq!(shown.as_deref(), Some(r#"'-c' 'x='\''$a'\'' "b"'"#));
    }

    #[test]
    fn places_are_read_as_the_server_notes_them() {
        let place = |socket: &str, address: &str| {
            let text = format!("42\n/data\n1700000000\n5433\n{socket}\n{address}\n  1 2\nready   \n");
            Place::parse(&text, Path::new("/data")).map(|place| place.host)
        };
        assert_eq!(place("/run/pg", "localhost").as_deref(), Some("/run/pg"));
        assert_eq!(place("sockets", "").as_deref(), Some("/data/sockets"));
        assert_eq!(place("@name", "").as_deref(), Some("@name"));
        assert_eq!(place("", "*").as_deref(), Some("localhost"));
        assert_eq!(place("", "10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(place("", ""), None);
        assert_eq!(Place::parse("42\n/data\n17\n", Path::new("/data")), None);
    }
}
