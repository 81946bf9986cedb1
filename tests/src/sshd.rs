//! A real OpenSSH server, on loopback, that lets in one key.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::kill::signal;
use crate::programs::{skip, target_dir};
use crate::{Background, Port, Scratch, User, find, require, tree_of, wait_until};

/// A running server, and the files that a client of it needs. Ends with the test.
///
/// It runs as the user whom everything real runs as, who is the only one that can log in.
#[derive(Debug)]
pub struct Sshd {
    scratch: Scratch,
    dir: PathBuf,
    program: PathBuf,
    port: Port,
    user: String,
    running: Option<Background>,
    starts: u32,
}

impl Sshd {
    /// Starts a server, with new keys; `None` after a loud note when OpenSSH is not installed.
    pub fn start(scratch: &Scratch) -> Option<Sshd> {
        Sshd::start_with(scratch, "")
    }

    /// As [`start`](Sshd::start), with arguments for the server's SFTP: `-R` writes nothing, `-P hardlink` lacks it.
    pub fn start_with(scratch: &Scratch, sftp: &str) -> Option<Sshd> {
        let keygen = require("ssh-keygen")?;
        require("ssh")?;
        let installed = installed()?;
        let dir = (1..).map(|nth| format!("sshd{nth}")).find(|name| !scratch.join(name).exists());
        let dir = scratch.dir(dir.expect("numbers do not end"));
        // The target directory may be out of the unprivileged user's reach.
        let program = dir.join("sshd");
        fs::copy(&installed, &program).expect("copy sshd");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set the mode of sshd");
        let port = Port::free();
        let mut sshd = Sshd {
            scratch: scratch.clone(),
            dir,
            program,
            port,
            user: user_name(),
            running: None,
            starts: 0,
        };
        for key in ["host_key", "client_key", "other_key"] {
            sshd.make_key(&keygen, key);
        }
        sshd.configure(&installed, sftp);
        sshd.start_again();
        Some(sshd)
    }

    fn make_key(&self, keygen: &Path, name: &str) {
        let mut command = self.scratch.command(keygen);
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(self.dir.join(name));
        assert!(command.status().expect("run ssh-keygen").success(), "make {name}");
    }

    fn configure(&self, installed: &Path, sftp: &str) {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).expect("read a key");
        let write = |name: &str, content: String| {
            fs::write(self.dir.join(name), content).expect("write a file of sshd");
            self.scratch.own(&self.dir.join(name));
        };
        write("authorized_keys", read("client_key.pub"));
        write("known_hosts", format!("[127.0.0.1]:{} {}", self.port.number(), read("host_key.pub")));
        write("wrong_hosts", format!("[127.0.0.1]:{} {}", self.port.number(), read("other_key.pub")));
        write("no_hosts", String::new());
        let dir = self.dir.display();
        let mut settings = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             AllowTcpForwarding no\nMaxStartups 100\nSubsystem sftp internal-sftp {sftp}\n",
            self.port.number()
        );
        // From 9.8 on, the server is several programs, and remembers who tried in vain.
        let programs = installed.parent().and_then(Path::parent).map(|usr| usr.join("lib/openssh"));
        for (setting, name) in [("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")] {
            let Some(part) = programs.as_ref().map(|dir| dir.join(name)).filter(|part| part.is_file()) else {
                continue;
            };
            let copy = self.dir.join(name);
            fs::copy(part, &copy).expect("copy a part of sshd");
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
                .expect("set the mode of a part of sshd");
            settings += &format!("{setting} {}\n", copy.display());
            if name == "sshd-session" {
                settings += "PerSourcePenalties no\n";
            }
        }
        write("config", settings);
    }

    /// Starts the server on the same port, with the same keys.
    pub fn start_again(&mut self) {
        self.stop();
        self.starts += 1;
        let mut command = self.scratch.command(&self.program);
        command.args(["-D", "-e", "-f"]).arg(self.dir.join("config"));
        let running = Background::start(command, self.dir.join(format!("log{}", self.starts)));
        let running = self.running.insert(running);
        wait_until("sshd listens", Duration::from_secs(30), || {
            assert!(running.ended().is_none(), "sshd ended: {}", running.printed());
            running.printed().contains("Server listening on")
        });
    }

    /// Kills the server and all its sessions, as a loss of power does.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Kills the sessions; the server goes on.
    pub fn kill_sessions(&self) {
        self.sessions().into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }

    /// The processes of the sessions.
    pub fn sessions(&self) -> Vec<u32> {
        let Some(running) = &self.running else { return Vec::new() };
        tree_of(running.pid()).into_iter().filter(|pid| *pid != running.pid()).collect()
    }

    /// Stops the server and its sessions in their tracks; connections stay open.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, what: Signal) {
        let Some(running) = &self.running else { return };
        tree_of(running.pid()).into_iter().for_each(|pid| signal(pid, what));
    }

    /// `sftp://user@127.0.0.1:port/path`, for an absolute path.
    pub fn url(&self, path: impl AsRef<Path>) -> String {
        format!("sftp://{}@127.0.0.1:{}{}", self.user, self.port.number(), path.as_ref().display())
    }

    /// The user who can log in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The port of 127.0.0.1 where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The private key that is let in.
    pub fn identity(&self) -> PathBuf {
        self.dir.join("client_key")
    }

    /// A private key that is not.
    pub fn wrong_identity(&self) -> PathBuf {
        self.dir.join("other_key")
    }

    /// The file with the server's key.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// A file with another key for this server.
    pub fn wrong_hosts(&self) -> PathBuf {
        self.dir.join("wrong_hosts")
    }

    /// A file that knows no server.
    pub fn no_hosts(&self) -> PathBuf {
        self.dir.join("no_hosts")
    }

    /// What the server wrote to its log since its last start.
    pub fn log(&self) -> String {
        self.running.as_ref().map(Background::printed).unwrap_or_default()
    }
}

/// The server's program: installed, or unpacked by `.ci/prepare`.
fn installed() -> Option<PathBuf> {
    let unpacked = target_dir().join("openssh/usr/sbin/sshd");
    let places = [PathBuf::from("/usr/sbin/sshd"), unpacked];
    let found = find("sshd").or_else(|| places.into_iter().find(|place| place.is_file()));
    if found.is_none() {
        skip("sshd");
    }
    found
}

/// The name of the user whom everything real runs as.
fn user_name() -> String {
    let uid = match User::unprivileged() {
        Some(user) => user.uid,
        None => fs::metadata("/proc/self").expect("look at ourselves").uid(),
    };
    let output = Command::new("id").args(["-un", &uid.to_string()]).output().expect("run id");
    let name = String::from_utf8(output.stdout).expect("a user name in UTF-8");
    assert!(output.status.success(), "the user {uid} has no name");
    name.trim().to_owned()
}
