//! Settings in, checked objects out. Flags beat variables, variables beat the file, the file beats defaults.

mod dumps;
mod hand_over;
mod stores;
mod wal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;

pub use dumps::MailWhen;
pub use hand_over::Variables;
pub use wal::WalWork;

use crate::archive::{Archive, ClusterName, Keys, SystemId};
use crate::behind::{Notes, Tell};
use crate::cipher::age::{Identity, Recipient, parse_recipients, read_identity_file};
use crate::cipher::writer::{Writer, WriterKey, parse_writers, read_writer_key_file};
use crate::codec::{Codec, CodecSpec};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::patience::Patience;
use crate::postgres::conninfo::ConnInfo;
use crate::retention::Rules;

/// Where the settings file is, when nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/walarchive/walarchive.toml";
const FILE_MAX: u64 = 1 << 20;

/// A setting: its key in the file, and its variable.
struct Setting {
    key: &'static str,
    variable: &'static str,
}

macro_rules! settings {
    ($($name:ident = $key:literal, $variable:literal;)*) => {
        $(const $name: Setting = Setting { key: $key, variable: $variable };)*
        const ALL: &[Setting] = &[$($name),*];
    };
}

settings! {
    ARCHIVE = "archive", "WALARCHIVE_ARCHIVE";
    ARCHIVE_POLICY = "archive_policy", "WALARCHIVE_ARCHIVE_POLICY";
    CLUSTER = "cluster", "WALARCHIVE_CLUSTER";
    SYSTEM_ID = "system_id", "WALARCHIVE_SYSTEM_ID";
    RECIPIENTS = "encryption.recipients", "WALARCHIVE_RECIPIENTS";
    RECIPIENTS_FILE = "encryption.recipients_file", "WALARCHIVE_RECIPIENTS_FILE";
    IDENTITY_FILE = "encryption.identity_file", "WALARCHIVE_IDENTITY_FILE";
    WRITER_KEY_FILE = "encryption.writer_key_file", "WALARCHIVE_WRITER_KEY_FILE";
    TRUSTED_WRITERS = "encryption.trusted_writers", "WALARCHIVE_TRUSTED_WRITERS";
    DATA_DIR = "postgres.data_dir", "PGDATA";
    CONNECTION = "postgres.connection", "WALARCHIVE_CONNECTION";
    WAL_CODEC = "wal.codec", "WALARCHIVE_WAL_CODEC";
    BACKUP_CODEC = "backup.codec", "WALARCHIVE_BACKUP_CODEC";
    RETRY_BUDGET = "wal.retry_budget", "WALARCHIVE_RETRY_BUDGET";
    WAL_PUSH_AHEAD = "wal.push_ahead", "WALARCHIVE_WAL_PUSH_AHEAD";
    WAL_BATCH_DONE = "wal.batch_done", "WALARCHIVE_WAL_BATCH_DONE";
    WAL_FETCH_AHEAD = "wal.fetch_ahead", "WALARCHIVE_WAL_FETCH_AHEAD";
    WAL_JOBS = "wal.jobs", "WALARCHIVE_WAL_JOBS";
    WAL_MEMORY = "wal.memory", "WALARCHIVE_WAL_MEMORY";
    WAL_NICE = "wal.nice", "WALARCHIVE_WAL_NICE";
    WAL_IONICE = "wal.ionice", "WALARCHIVE_WAL_IONICE";
    WAL_WAIT = "backup.wal_wait", "WALARCHIVE_BACKUP_WAL_WAIT";
    BACKUP_LEASE = "backup.lease", "WALARCHIVE_BACKUP_LEASE";
    BACKUP_FULL_EVERY = "backup.full_every", "WALARCHIVE_BACKUP_FULL_EVERY";
    BACKUP_WINDOW = "backup.window", "WALARCHIVE_BACKUP_WINDOW";
    BACKUP_KEEP_LAST = "backup.keep_last", "WALARCHIVE_BACKUP_KEEP_LAST";
    BACKUP_KEEP_DAILY = "backup.keep_daily", "WALARCHIVE_BACKUP_KEEP_DAILY";
    BACKUP_KEEP_WEEKLY = "backup.keep_weekly", "WALARCHIVE_BACKUP_KEEP_WEEKLY";
    BACKUP_KEEP_MONTHLY = "backup.keep_monthly", "WALARCHIVE_BACKUP_KEEP_MONTHLY";
    BACKUP_KEEP_YEARLY = "backup.keep_yearly", "WALARCHIVE_BACKUP_KEEP_YEARLY";
    WAL_WINDOW = "wal.window", "WALARCHIVE_WAL_WINDOW";
    BIN_DIR = "postgres.bin_dir", "WALARCHIVE_BIN_DIR";
    DUMP_CODEC = "dump.codec", "WALARCHIVE_DUMP_CODEC";
    DUMP_DATABASES = "dump.databases", "WALARCHIVE_DUMP_DATABASES";
    DUMP_EXCLUDE = "dump.exclude", "WALARCHIVE_DUMP_EXCLUDE";
    DUMP_FORMAT = "dump.format", "WALARCHIVE_DUMP_FORMAT";
    DUMP_ARGUMENTS = "dump.arguments", "WALARCHIVE_DUMP_ARGUMENTS";
    DUMP_FULL_EVERY = "dump.full_every", "WALARCHIVE_DUMP_FULL_EVERY";
    DUMP_GLOBALS = "dump.globals", "WALARCHIVE_DUMP_GLOBALS";
    DUMP_GLOBALS_ARGUMENTS = "dump.globals_arguments", "WALARCHIVE_DUMP_GLOBALS_ARGUMENTS";
    DUMP_JOBS = "dump.jobs", "WALARCHIVE_DUMP_JOBS";
    DUMP_PARALLEL_FROM = "dump.parallel_from", "WALARCHIVE_DUMP_PARALLEL_FROM";
    DUMP_SCRATCH_DIR = "dump.scratch_dir", "WALARCHIVE_DUMP_SCRATCH_DIR";
    DUMP_TIME_ZONE = "dump.time_zone", "WALARCHIVE_DUMP_TIME_ZONE";
    DUMP_KEEP_LAST = "dump.keep_last", "WALARCHIVE_DUMP_KEEP_LAST";
    DUMP_KEEP_DAILY = "dump.keep_daily", "WALARCHIVE_DUMP_KEEP_DAILY";
    DUMP_KEEP_WEEKLY = "dump.keep_weekly", "WALARCHIVE_DUMP_KEEP_WEEKLY";
    DUMP_KEEP_MONTHLY = "dump.keep_monthly", "WALARCHIVE_DUMP_KEEP_MONTHLY";
    DUMP_KEEP_YEARLY = "dump.keep_yearly", "WALARCHIVE_DUMP_KEEP_YEARLY";
    DUMP_WEEKDAY = "dump.weekday", "WALARCHIVE_DUMP_WEEKDAY";
    DUMP_MONTHDAY = "dump.monthday", "WALARCHIVE_DUMP_MONTHDAY";
    DUMP_EXPECT_MOUNT = "dump.expect_mount", "WALARCHIVE_DUMP_EXPECT_MOUNT";
    DUMP_PRE_HOOK = "dump.pre_hook", "WALARCHIVE_DUMP_PRE_HOOK";
    DUMP_POST_HOOK = "dump.post_hook", "WALARCHIVE_DUMP_POST_HOOK";
    DUMP_MAIL_TO = "dump.mail_to", "WALARCHIVE_DUMP_MAIL_TO";
    DUMP_MAIL = "dump.mail", "WALARCHIVE_DUMP_MAIL";
    DUMP_SENDMAIL = "dump.sendmail", "WALARCHIVE_DUMP_SENDMAIL";
    DRILL_SCRATCH_DIR = "drill.scratch_dir", "WALARCHIVE_DRILL_SCRATCH_DIR";
    RESTORE_LATEST_STOP_COMMAND = "restore_latest.stop_command", "WALARCHIVE_RESTORE_LATEST_STOP_COMMAND";
    RESTORE_LATEST_START_COMMAND = "restore_latest.start_command", "WALARCHIVE_RESTORE_LATEST_START_COMMAND";
    RESTORE_LATEST_CHECK_SQL = "restore_latest.check_sql", "WALARCHIVE_RESTORE_LATEST_CHECK_SQL";
    RESTORE_LATEST_PRE_HOOK = "restore_latest.pre_hook", "WALARCHIVE_RESTORE_LATEST_PRE_HOOK";
    RESTORE_LATEST_POST_HOOK = "restore_latest.post_hook", "WALARCHIVE_RESTORE_LATEST_POST_HOOK";
    RESTORE_LATEST_PRODUCTION_NAME = "restore_latest.production_name", "WALARCHIVE_RESTORE_LATEST_PRODUCTION_NAME";
    RESTORE_LATEST_TIMEOUT = "restore_latest.timeout", "WALARCHIVE_RESTORE_LATEST_TIMEOUT";
    PRUNE_GRACE = "prune.grace", "WALARCHIVE_PRUNE_GRACE";
    STATE_DIR = "state_dir", "WALARCHIVE_STATE_DIR";
    STORE_ENDPOINT = "store.endpoint", "WALARCHIVE_STORE_ENDPOINT";
    STORE_REGION = "store.region", "WALARCHIVE_STORE_REGION";
    STORE_PATH_STYLE = "store.path_style", "WALARCHIVE_STORE_PATH_STYLE";
    STORE_STORAGE_CLASS = "store.storage_class", "WALARCHIVE_STORE_STORAGE_CLASS";
    STORE_SERVER_ENCRYPTION = "store.server_encryption", "WALARCHIVE_STORE_SERVER_ENCRYPTION";
    STORE_PROFILE = "store.profile", "WALARCHIVE_STORE_PROFILE";
    STORE_CA_FILE = "store.ca_file", "WALARCHIVE_STORE_CA_FILE";
    STORE_PROXY = "store.proxy", "WALARCHIVE_STORE_PROXY";
    STORE_ALLOW_HTTP = "store.allow_http", "WALARCHIVE_STORE_ALLOW_HTTP";
    STORE_CREATE = "store.create", "WALARCHIVE_STORE_CREATE";
    STORE_PART_SIZE = "store.part_size", "WALARCHIVE_STORE_PART_SIZE";
    STORE_MAX_PARTS = "store.max_parts", "WALARCHIVE_STORE_MAX_PARTS";
    STORE_MEMORY = "store.memory", "WALARCHIVE_STORE_MEMORY";
    STORE_CONCURRENCY = "store.concurrency", "WALARCHIVE_STORE_CONCURRENCY";
    STORE_BANDWIDTH = "store.bandwidth", "WALARCHIVE_STORE_BANDWIDTH";
    STORE_CONNECT_TIMEOUT = "store.connect_timeout", "WALARCHIVE_STORE_CONNECT_TIMEOUT";
    STORE_FIRST_BYTE_TIMEOUT = "store.first_byte_timeout", "WALARCHIVE_STORE_FIRST_BYTE_TIMEOUT";
    STORE_STALL_TIMEOUT = "store.stall_timeout", "WALARCHIVE_STORE_STALL_TIMEOUT";
    STORE_SSH_IDENTITY = "store.ssh_identity", "WALARCHIVE_STORE_SSH_IDENTITY";
    STORE_SSH_KNOWN_HOSTS = "store.ssh_known_hosts", "WALARCHIVE_STORE_SSH_KNOWN_HOSTS";
    STORE_RETRY_BUDGET = "store.retry_budget", "WALARCHIVE_STORE_RETRY_BUDGET";
}

/// The variable that names the settings file.
const FILE_VARIABLE: &str = "WALARCHIVE_CONFIG";

/// Variables with the providers' own names begin so, or are named so.
const PROVIDERS: [&str; 8] = [
    "AWS_",
    "GOOGLE_",
    "AZURE_",
    "HOME",
    "SERVICE_ACCOUNT",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "SSH_AUTH_SOCK",
];

/// The values of settings, by key, with where each comes from.
#[derive(Default)]
pub struct Settings {
    values: BTreeMap<&'static str, (String, String)>,
    file: Option<PathBuf>,
    variables: BTreeMap<String, String>,
    envdir: Option<PathBuf>,
    tell: Option<Arc<Tell>>,
    notes: OnceLock<Arc<Notes>>,
}

/// The settings of restores into service.
#[derive(Debug, Clone)]
pub struct RestoreLatest {
    /// The shell's command that stops the server.
    pub stop_command: Option<String>,
    /// The one that starts it.
    pub start_command: Option<String>,
    /// SQL that must run without an error in the restored cluster.
    pub check_sql: Option<String>,
    /// A command that is run before anything is touched.
    pub pre_hook: Option<String>,
    /// A command that is run when all is over.
    pub post_hook: Option<String>,
    /// What this host is called, if it is one that nobody replaces by mistake.
    pub production_name: Option<String>,
    /// How long the server may take to stop, and to start and recover.
    pub timeout: Duration,
}

/// What flags say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--archive`
    pub archive: Option<String>,
    /// `--cluster`
    pub cluster: Option<String>,
    /// `--system-id`
    pub system_id: Option<String>,
    /// `--envdir`
    pub envdir: Option<PathBuf>,
}

#[derive(Deserialize)]
struct FileText(toml::Table);

fn unknown(place: &str, name: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    Error::usage(format!("{place} sets {name}, which is not a setting of this program"))
        .hint(format!("known are: {}", known.join(", ")))
}

fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<(String, String)>) -> Result<()> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(&key, inner, into)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(list) => {
                let parts: Option<Vec<_>> = list.iter().map(toml::Value::as_str).collect();
                parts.ok_or_else(|| Error::usage(format!("{key} must be a list of strings")))?.join("\n")
            }
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            other => return Err(Error::usage(format!("{key} cannot be a {}", other.type_str()))),
        };
        into.push((key, text));
    }
    Ok(())
}

impl Settings {
    /// Gathers the settings. `variables` are the process's environment.
    pub fn load(flags: &Flags, variables: impl Iterator<Item = (String, String)>) -> Result<Settings> {
        let mut variables: BTreeMap<String, String> = variables.collect();
        if let Some(dir) = &flags.envdir {
            variables.extend(read_envdir(dir)?);
        }
        let mut settings = Settings::default();
        settings.take_file(flags, &variables)?;
        settings.take_variables(&variables)?;
        variables.retain(|name, _| PROVIDERS.iter().any(|known| name.starts_with(known)));
        settings.variables = variables;
        settings.envdir = flags.envdir.clone();
        for (setting, value) in
            [(ARCHIVE, &flags.archive), (CLUSTER, &flags.cluster), (SYSTEM_ID, &flags.system_id)]
        {
            if let Some(value) = value {
                settings
                    .values
                    .insert(setting.key, (value.clone(), format!("--{}", setting.key.replace('_', "-"))));
            }
        }
        Ok(settings)
    }

    fn take_file(&mut self, flags: &Flags, variables: &BTreeMap<String, String>) -> Result<()> {
        let named = flags.config.clone().or_else(|| variables.get(FILE_VARIABLE).map(PathBuf::from));
        let path = match named {
            Some(path) => path,
            None if Path::new(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
            None => return Ok(()),
        };
        let wrong = |message: String| Error::usage(message).on(path.display());
        let bytes = files::read(&path, FILE_MAX).map_err(|error| {
            wrong(format!("the settings file {} cannot be read", path.display())).because(error)
        })?;
        let text =
            String::from_utf8(bytes).map_err(|_| wrong("the settings file is not UTF-8".to_owned()))?;
        let FileText(table) = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            wrong(format!(
                "the settings file {} cannot be read: line {line}: {}",
                path.display(),
                error.message()
            ))
        })?;
        let mut found = Vec::new();
        flatten("", &table, &mut found).map_err(|error| error.on(path.display()))?;
        for (key, value) in found {
            let place = path.display().to_string();
            let setting = ALL.iter().find(|setting| setting.key == key);
            let setting =
                setting.ok_or_else(|| unknown(&place, &key, ALL.iter().map(|setting| setting.key)))?;
            self.values.insert(setting.key, (value, place));
        }
        self.file = Some(path);
        Ok(())
    }

    fn take_variables(&mut self, variables: &BTreeMap<String, String>) -> Result<()> {
        for (name, value) in variables {
            match ALL.iter().find(|setting| setting.variable == name) {
                Some(setting) if !value.is_empty() => {
                    self.values.insert(setting.key, (value.clone(), name.clone()));
                }
                None if name.starts_with("WALARCHIVE_") && name != FILE_VARIABLE => {
                    return Err(unknown("the environment", name, ALL.iter().map(|setting| setting.variable)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn text(&self, setting: &Setting) -> Option<&str> {
        self.values.get(setting.key).map(|(value, _)| value.as_str())
    }

    fn parsed<T>(&self, setting: &Setting, default: T, parse: impl Fn(&str) -> Result<T>) -> Result<T> {
        match self.values.get(setting.key) {
            Some((value, place)) => {
                parse(value).map_err(|error| error.during(format!("{} (set by {place})", setting.key)))
            }
            None => Ok(default),
        }
    }

    /// The name of the cluster.
    pub fn cluster(&self) -> Result<ClusterName> {
        self.parsed(&CLUSTER, ClusterName::default(), str::parse)
    }

    /// The name of the cluster, when it is set.
    pub fn named_cluster(&self) -> Result<Option<ClusterName>> {
        self.parsed(&CLUSTER, None, |text| text.parse().map(Some))
    }

    /// The system identifier, when it is set.
    pub fn system_id(&self) -> Result<Option<SystemId>> {
        self.parsed(&SYSTEM_ID, None, |text| text.parse().map(Some))
    }

    /// Who may read what is written, from the setting and the file that it may name.
    pub fn recipients(&self) -> Result<Vec<Recipient>> {
        let parse = |text: &str| {
            parse_recipients(text)
                .map_err(|error| Error::usage("the recipients cannot be used").because(error))
        };
        let mut recipients = self.parsed(&RECIPIENTS, Vec::new(), parse)?;
        let from_file = self.parsed(&RECIPIENTS_FILE, Vec::new(), |path| {
            refuse_secret(path)?;
            let bytes = files::read(Path::new(path), FILE_MAX).map_err(|error| {
                Error::new(Kind::Key, format!("the recipients' file {path} cannot be read")).because(error)
            })?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Error::new(Kind::Key, format!("the recipients' file {path} is not text")))?;
            parse(&text)
        })?;
        for recipient in from_file {
            if !recipients.contains(&recipient) {
                recipients.push(recipient);
            }
        }
        Ok(recipients)
    }

    /// The secret keys, when a file with them is set.
    pub fn identities(&self) -> Result<Vec<Identity>> {
        self.parsed(&IDENTITY_FILE, Vec::new(), |path| {
            refuse_secret(path)?;
            read_identity_file(Path::new(path))
        })
    }

    /// The keys for reading and writing. A host that has only an identity writes for itself.
    pub fn keys(&self) -> Result<Keys> {
        let (mut recipients, identities) = (self.recipients()?, self.identities()?);
        if recipients.is_empty() {
            recipients = identities.iter().map(Identity::recipient).collect();
        }
        Ok(Keys {
            recipients,
            identities,
            writer: self.writer_key()?,
            trusted_writers: self.trusted_writers()?,
        })
    }

    /// What signs what is written, when a file with it is set.
    pub fn writer_key(&self) -> Result<Option<WriterKey>> {
        self.parsed(&WRITER_KEY_FILE, None, |path| {
            refuse_secret(path)?;
            read_writer_key_file(Path::new(path)).map(Some)
        })
    }

    /// Whose signatures are believed; where there are any, what none of them signed is refused.
    pub fn trusted_writers(&self) -> Result<Vec<Writer>> {
        self.parsed(&TRUSTED_WRITERS, Vec::new(), |text| {
            parse_writers(text)
                .map_err(|error| Error::usage("the trusted writers cannot be used").because(error))
        })
    }

    /// The archive, opened.
    pub async fn archive(&self, patience: &Patience) -> Result<Archive> {
        let url = self.archive_url()?;
        let storage = self.storage(patience).await?;
        Archive::open(storage, self.keys()?)
            .await
            .map_err(|error| error.during(format!("opening the archive {url}")))
    }

    /// The data directory, when it is set.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.text(&DATA_DIR).map(PathBuf::from)
    }

    /// How to reach the server.
    pub fn connection(&self) -> ConnInfo {
        ConnInfo::new(self.text(&CONNECTION).map(str::to_owned))
    }

    /// How WAL is compressed.
    pub fn wal_codec(&self) -> Result<Arc<dyn Codec>> {
        self.parsed(&WAL_CODEC, CodecSpec::default(), str::parse).map(CodecSpec::build)
    }

    /// How backups are compressed.
    pub fn backup_codec(&self) -> Result<Arc<dyn Codec>> {
        self.parsed(&BACKUP_CODEC, CodecSpec::default(), str::parse).map(CodecSpec::build)
    }

    /// How long WAL commands try again; `default` when it is not set.
    pub fn retry_budget(&self, default: Duration) -> Result<Duration> {
        self.parsed(&RETRY_BUDGET, default, duration)
    }

    /// How long each request of other commands is tried again.
    pub fn store_retry_budget(&self) -> Result<Duration> {
        self.parsed(&STORE_RETRY_BUDGET, Duration::from_secs(60), duration)
    }

    /// How long a backup waits for the WAL that it needs.
    pub fn wal_wait(&self) -> Result<Duration> {
        self.parsed(&WAL_WAIT, Duration::from_secs(300), duration)
    }

    /// How long what a dead backup has stored stays protected.
    pub fn backup_lease(&self) -> Result<Duration> {
        let lease = self.parsed(&BACKUP_LEASE, Duration::from_secs(24 * 3600), duration)?;
        if lease < Duration::from_secs(1) {
            return Err(Error::usage("backup.lease must be a second at least"));
        }
        Ok(lease)
    }

    /// How old the last backup may be that stored everything, before the next one does again.
    pub fn full_every(&self) -> Result<Duration> {
        self.parsed(&BACKUP_FULL_EVERY, Duration::from_secs(30 * 24 * 3600), duration)
    }

    /// Which backups and which WAL are kept. Nothing set: all.
    pub fn retention(&self) -> Result<Rules> {
        let count = |setting: &Setting| {
            self.parsed(setting, None, |text| {
                let count =
                    text.parse().map_err(|_| Error::usage(format!("{text:?} is not a number of backups")))?;
                Ok(Some(count))
            })
        };
        let window = |setting: &Setting| self.parsed(setting, None, |text| duration(text).map(Some));
        let rules = Rules {
            window: window(&BACKUP_WINDOW)?,
            last: count(&BACKUP_KEEP_LAST)?,
            daily: count(&BACKUP_KEEP_DAILY)?,
            weekly: count(&BACKUP_KEEP_WEEKLY)?,
            monthly: count(&BACKUP_KEEP_MONTHLY)?,
            yearly: count(&BACKUP_KEEP_YEARLY)?,
            wal_window: window(&WAL_WINDOW)?,
        };
        rules.check()?;
        Ok(rules)
    }

    /// How old what nobody needs must be before it is removed.
    pub fn prune_grace(&self) -> Result<Duration> {
        self.parsed(&PRUNE_GRACE, Duration::from_secs(24 * 3600), duration)
    }

    /// What is told of restores into service.
    pub fn restore_latest(&self) -> Result<RestoreLatest> {
        let text = |setting: &Setting| self.text(setting).map(str::to_owned);
        Ok(RestoreLatest {
            stop_command: text(&RESTORE_LATEST_STOP_COMMAND),
            start_command: text(&RESTORE_LATEST_START_COMMAND),
            check_sql: text(&RESTORE_LATEST_CHECK_SQL),
            pre_hook: text(&RESTORE_LATEST_PRE_HOOK),
            post_hook: text(&RESTORE_LATEST_POST_HOOK),
            production_name: text(&RESTORE_LATEST_PRODUCTION_NAME),
            timeout: self.parsed(&RESTORE_LATEST_TIMEOUT, Duration::from_secs(4 * 3600), duration)?,
        })
    }

    /// Where drills restore to, when it is set.
    pub fn drill_scratch_dir(&self) -> Option<PathBuf> {
        self.text(&DRILL_SCRATCH_DIR).map(PathBuf::from)
    }

    /// The daemontools directory that was named.
    pub fn envdir(&self) -> Option<&Path> {
        self.envdir.as_deref()
    }
}

/// Keeps a new secret key in a file that only its owner can read. A file that is there is never touched.
pub fn write_identity(path: &Path, identity: &Identity) -> Result<()> {
    write_secret(path, &identity.recipient().to_string(), &identity.to_secret_string())
}

/// Keeps a writer's new secret key in a file that only its owner can read. A file that is there is never touched.
pub fn write_writer_key(path: &Path, key: &WriterKey) -> Result<()> {
    write_secret(path, &key.writer().to_string(), &key.to_secret_string())
}

fn write_secret(path: &Path, public: &str, secret: &str) -> Result<()> {
    let now = jiff::Timestamp::now();
    let text = zeroize::Zeroizing::new(format!("# created: {now}\n# public key: {public}\n{secret}\n"));
    let mut file = files::NewFile::create(path, 0o600)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error).on(path.display()))?;
    if file.publish_new()? {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, format!("{} exists already; nothing was changed", path.display()))
        .on(path.display())
        .hint("a key that is overwritten is lost, with all that it can read"))
}

/// A secret key where the name of its file belongs must not end up in messages.
fn refuse_secret(path: &str) -> Result<()> {
    if path.to_ascii_uppercase().contains("-SECRET-KEY") {
        return Err(Error::usage("a secret key stands where the name of a file belongs")
            .hint("keep the key in a file that only its owner can read, and name that file; consider this key known to others"));
    }
    Ok(())
}

/// A duration as settings have it: 90s, 5min, 2h, 14d, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text).or_else(|_| text.parse::<u64>().map(Duration::from_secs)).map_err(|_| {
        Error::usage(format!("{text:?} is not a duration")).hint("write it like 90s, 5min, 2h or 14d")
    })
}

/// A daemontools directory: each file is a variable, its first line the value.
fn read_envdir(dir: &Path) -> Result<BTreeMap<String, String>> {
    let failed = |error| Error::io(format!("cannot read the environment directory {}", dir.display()), error);
    let mut variables = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.contains('=') || !entry.path().is_file() {
            continue;
        }
        let bytes = files::read(&entry.path(), FILE_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().next().unwrap_or_default().trim_end().replace('\0', "\n");
        variables.insert(name, line);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests;
