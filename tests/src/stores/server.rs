//! Servers that can be stopped, frozen and started again.

use std::fmt::Debug;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::kill::{is_stopped, signal};
use crate::{Background, Port, Scratch, tree_of, wait_until};

/// What a server of object storage can be told.
pub(super) trait Control: Send + Sync + Debug {
    fn addr(&self) -> String;
    fn start(&self);
    fn stop(&self);
    fn freeze(&self, frozen: bool);
}

/// A running server; it ends with the last clone, and when the test's process dies.
///
/// Stopping one that other tests use too would be their end: ask for [`alone`](super::alone) first.
#[derive(Debug, Clone)]
pub struct Server(pub(super) Arc<dyn Control>);

impl Server {
    /// Its `host:port`.
    pub fn addr(&self) -> String {
        self.0.addr()
    }

    /// Ends it: connections break, new ones are refused. What it had acknowledged it keeps, unless it is moto.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Starts it again at the same address with what it had, and waits until it works.
    pub fn start(&self) {
        self.0.start();
    }

    /// Connections are accepted, or wait, and nothing is ever answered, until [`thaw`](Server::thaw).
    pub fn freeze(&self) {
        self.0.freeze(true);
    }

    /// Goes on where [`freeze`](Server::freeze) stopped it.
    pub fn thaw(&self) {
        self.0.freeze(false);
    }
}

/// Ends `"$@"` when the test's process is gone, which closes the pipe: by a signal, a crash or otherwise.
const KEEPER: &str = r#"exec 3<&0 </dev/null
"$@" 3<&- &
read -r _ <&3
kill -9 $!
wait
rm -f $LEAVES"#;

/// A server that is a program.
#[derive(Debug)]
pub(super) struct Program {
    pub name: &'static str,
    pub scratch: Scratch,
    pub ports: Vec<Port>,
    /// The program and its arguments.
    pub line: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Whether the server at this address works.
    pub ready: fn(&str) -> bool,
    /// Whether it keeps what it acknowledged only when it is asked to end, and not when it is killed.
    pub polite: bool,
    /// What it leaves outside of the scratch directory.
    pub leaves: Vec<PathBuf>,
    pub running: Mutex<Option<Background>>,
}

impl Program {
    fn running(&self) -> MutexGuard<'_, Option<Background>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        if let Some(mut server) = self.running().take() {
            server.kill();
            // The last of its threads closes its port, a moment after the first has gone.
            let addr = self.addr();
            wait_until(&format!("{addr} is closed"), Duration::from_secs(60), || {
                TcpStream::connect(&addr).is_err()
            });
        }
        self.tidy();
    }

    fn tidy(&self) {
        for path in &self.leaves {
            let _ = fs::remove_file(path);
        }
    }

    fn command(&self) -> Command {
        let mut command = self.scratch.command("/bin/sh");
        command.args(["-c", KEEPER, self.name]).args(&self.line).stdin(Stdio::piped());
        let leaves: Vec<_> = self.leaves.iter().map(|path| path.display().to_string()).collect();
        command.env("TMPDIR", self.scratch.path()).env("LEAVES", leaves.join(" "));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Control for Program {
    fn addr(&self) -> String {
        self.ports[0].addr().to_string()
    }

    fn start(&self) {
        let mut running = self.running();
        assert!(running.is_none(), "{} runs already", self.name);
        self.tidy();
        let log = self.scratch.join(format!("{}.log", self.name));
        let server = running.insert(Background::start(self.command(), log));
        let addr = self.addr();
        // The keeper, and the server.
        let mut seen = false;
        wait_until(&format!("{} works at {addr}", self.name), Duration::from_secs(60), || {
            let alive = tree_of(server.pid()).len() > 1;
            assert!(alive || !seen, "{} ended:\n{}", self.name, server.printed());
            seen |= alive;
            (self.ready)(&addr)
        });
    }

    fn stop(&self) {
        if let Some(server) = self.running().as_ref().filter(|_| self.polite) {
            let alive = || tree_of(server.pid()).into_iter().skip(1).collect::<Vec<_>>();
            for pid in alive() {
                signal(pid, Signal::CONT);
                signal(pid, Signal::TERM);
            }
            wait_until(&format!("{} ends", self.name), Duration::from_secs(60), || alive().is_empty());
        }
        self.kill();
    }

    fn freeze(&self, frozen: bool) {
        let running = self.running();
        let server = running.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        // Not the keeper: it has to end the server should the test die now.
        let pids: Vec<u32> = tree_of(server.pid()).into_iter().skip(1).collect();
        pids.iter().for_each(|pid| signal(*pid, if frozen { Signal::STOP } else { Signal::CONT }));
        if frozen {
            let all_stopped = || pids.iter().all(|pid| is_stopped(*pid));
            wait_until(&format!("{} is frozen", self.name), Duration::from_secs(60), all_stopped);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
