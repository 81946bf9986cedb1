//! The command line of `ssh`, and what its complaints mean.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::SftpOptions;
use crate::error::{Error, Kind, Result};

/// How many of the server's signs of life may stay away before `ssh` gives the connection up.
const SIGNS: u64 = 3;

/// Refuses what `ssh` could take for an option, or a settings file could pass on to a shell.
pub(super) fn check(options: &SftpOptions) -> Result<()> {
    let plain = |text: &str, more: &[u8]| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte) || byte >= 0x80;
        !text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed)
    };
    if !plain(&options.host, b".-_:%") {
        return Err(Error::usage(format!("{:?} cannot be the name of an SSH server", options.host))
            .hint("write sftp://user@host/path"));
    }
    if options.user.as_deref().is_some_and(|user| !plain(user, b".-_@+$\\")) {
        let user = options.user.as_deref().unwrap_or_default();
        return Err(Error::usage(format!("{user:?} cannot be the name of a user of an SSH server")));
    }
    if options.path.trim_end_matches('/').is_empty() {
        return Err(Error::usage("the archive needs a directory of its own on the SSH server"));
    }
    if !options.path.starts_with('/') || options.path.contains(['\0', '\n', '\r']) {
        return Err(Error::usage(format!(
            "the archive's directory {:?} on {} is not an absolute path",
            options.path, options.host
        ))
        .hint("start it with a slash; /~/ at its beginning is the home directory"));
    }
    for file in [&options.identity, &options.known_hosts].into_iter().flatten() {
        if !file.is_absolute() || file.to_str().is_none_or(|name| name.contains(['\0', '\n', '"'])) {
            let message =
                format!("the file {} for ssh is not named by a plain absolute path", file.display());
            return Err(Error::usage(message));
        }
    }
    Ok(())
}

/// `ssh`, asked for the server's SFTP: without questions, without a terminal, only to a server that is known.
pub(super) fn ssh(options: &SftpOptions) -> Command {
    let mut command = Command::new("ssh");
    let mut set = |name: &str, value: &str| {
        command.arg(format!("-o{name}={value}"));
    };
    set("BatchMode", "yes");
    set("StrictHostKeyChecking", "yes");
    set("ConnectTimeout", &seconds(options.connect_timeout).to_string());
    set("ConnectionAttempts", "1");
    set("ServerAliveInterval", &(seconds(options.stall_timeout) / SIGNS).max(1).to_string());
    set("ServerAliveCountMax", &SIGNS.min(seconds(options.stall_timeout)).to_string());
    // A connection of its own: ending it ends what it has under way on the server, and nothing else.
    set("ControlMaster", "no");
    set("ControlPath", "none");
    set("RemoteCommand", "none");
    set("RequestTTY", "no");
    set("ForwardAgent", "no");
    set("ForwardX11", "no");
    set("ClearAllForwardings", "yes");
    set("PermitLocalCommand", "no");
    set("LogLevel", "INFO");
    if let Some(file) = &options.known_hosts {
        set("UserKnownHostsFile", &quoted(file));
        set("GlobalKnownHostsFile", "/dev/null");
    }
    if let Some(file) = &options.identity {
        set("IdentityFile", &quoted(file));
        // The keys of an agent would be offered first, and servers end connections after a few.
        set("IdentitiesOnly", "yes");
    }
    if let Some(port) = options.port {
        set("Port", &port.to_string());
    }
    if let Some(user) = &options.user {
        command.args(["-l", user]);
    }
    command.args(["-s", "--", &options.host, "sftp"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A file name as the value of a setting, where `%` stands for something else and blanks separate names.
fn quoted(file: &Path) -> String {
    format!("\"{}\"", file.display().to_string().replace('\\', "\\\\").replace('%', "%%"))
}

/// Whole seconds, at least one.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1)
}

/// What kind of trouble `ssh` complained of before it ended, and what to do about it.
pub(super) fn verdict(said: &str) -> (Kind, &'static str) {
    let has = |text: &str| said.contains(text);
    if has("IDENTIFICATION HAS CHANGED")
        || has("Host key verification failed")
        || has("host key is known for")
    {
        (
            Kind::Denied,
            "the server's key is not the one in known_hosts: find out why, then put the right one there",
        )
    } else if has("Permission denied") || has("Too many authentication failures") {
        (
            Kind::Denied,
            "the server accepts none of the keys that ssh has: try ssh with the same user and host",
        )
    } else if has("subsystem request failed") {
        (Kind::Usage, "this user may not use SFTP there, or the server has none")
    } else if has("Bad configuration option")
        || has("command-line line")
        || has("Bad owner or permissions on")
    {
        (Kind::Usage, "ssh did not accept its settings")
    } else {
        (Kind::Unreachable, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> SftpOptions {
        SftpOptions {
            user: Some("archive".into()),
            port: Some(2222),
            ..SftpOptions::new("store.example", "/srv/a")
        }
    }

    #[test]
    fn the_command_line() {
        let mut options = options();
        options.identity = Some("/etc/wal archive/100%/key".into());
        options.stall_timeout = Duration::from_millis(1500);
        let command = ssh(&options);
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_str().unwrap()).collect();
        for wanted in
            ["-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oServerAliveInterval=1", "-oPort=2222"]
        {
            assert!(arguments.contains(&wanted), "{arguments:?}");
        }
        assert!(arguments.contains(&"-oIdentityFile=\"/etc/wal archive/100%%/key\""), "{arguments:?}");
        assert_eq!(arguments[arguments.len() - 6..], ["-l", "archive", "-s", "--", "store.example", "sftp"]);
    }

    #[test]
    fn nothing_passes_for_an_option() {
        check(&options()).unwrap();
        for host in ["", "-oProxyCommand=id", "a b", "a;id", "a`id`", "a/b", "a\nb"] {
            let error = check(&SftpOptions { host: host.into(), ..options() }).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{host:?}");
        }
        for user in ["", "-l", "a b", "$(id)", "a'b"] {
            assert!(check(&SftpOptions { user: Some(user.into()), ..options() }).is_err(), "{user:?}");
        }
        for path in ["", "/", "//", "srv", "~/a", "/a\0"] {
            assert!(check(&SftpOptions { path: path.into(), ..options() }).is_err(), "{path:?}");
        }
        for file in ["key", "/a\"b"] {
            assert!(check(&SftpOptions { identity: Some(file.into()), ..options() }).is_err(), "{file:?}");
        }
    }

    #[test]
    fn complaints_have_kinds() {
        for (said, kind) in [
            ("archive@store: Permission denied (publickey).", Kind::Denied),
            ("No ED25519 host key is known for store and you have requested strict checking.", Kind::Denied),
            ("Host key verification failed.", Kind::Denied),
            ("subsystem request failed on channel 0", Kind::Usage),
            ("ssh: Could not resolve hostname store: Name or service not known", Kind::Unreachable),
            ("ssh: connect to host store port 22: Connection refused", Kind::Unreachable),
            ("", Kind::Unreachable),
        ] {
            assert_eq!(verdict(said).0, kind, "{said}");
        }
    }
}
