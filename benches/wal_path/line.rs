//! Commands as a server has them in its settings.

use std::ffi::OsStr;
use std::process::Command;

use walarchive_tests::{Cluster, Scratch};

/// What stands in `archive_command` or `restore_command`, and the environment that the server needs for it.
#[derive(Debug, Clone, Default)]
pub struct Line {
    pub text: String,
    pub env: Vec<(String, String)>,
}

impl Line {
    /// The same command, with `%p` and `%f` among its arguments.
    pub fn of(command: &Command) -> Line {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let text = |text: &OsStr| text.to_str().expect("commands are UTF-8").to_owned();
        let env = command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?))));
        let env = env.collect();
        Line { text: words.map(|word| quoted(&text(word))).collect::<Vec<_>>().join(" "), env }
    }

    /// A line for the shell.
    pub fn shell(text: impl Into<String>) -> Line {
        Line { text: text.into(), env: Vec::new() }
    }

    /// The same, with one variable more.
    pub fn with(mut self, name: &str, value: &str) -> Line {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the server has the shell do for a file.
    pub fn fill(text: &str, name: &str, path: &str) -> String {
        text.replace("%p", path).replace("%f", name)
    }

    /// A program that is run with the environment of the server.
    pub fn run_by(&self, scratch: &Scratch, program: impl AsRef<OsStr>) -> Command {
        let mut command = scratch.command(program);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The server of a cluster that does not run, with this environment and this setting.
    pub fn serve(&self, scratch: &Scratch, cluster: &Cluster, setting: &str) -> Cluster {
        let builder = Cluster::adopt(scratch).option(setting, &self.text);
        let builder = self.env.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        builder.existing(cluster.data_dir().to_owned()).expect("PostgreSQL is installed")
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._:=%@-".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{word}'") }
}
