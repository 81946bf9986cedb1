//! The knobs of a store: from the settings' table `store`, and for one store alone from the query of its url.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::Parts;
use crate::error::{Error, Result};
use crate::patience::Patience;

/// How [`Storage::create`](super::Storage::create) keeps its promise never to replace an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CreateMode {
    /// The store itself refuses: a conditional put, a hard link. Nothing is lost whoever else writes.
    #[default]
    Conditional,
    /// For stores that know no condition: looks whether the object is there, writes, and reads it back. Two writers of
    /// one key at the same moment may both be told that theirs was stored.
    CheckFirst,
}

/// How a store is reached and used.
#[derive(Clone)]
pub struct StoreOptions {
    /// Where the store is, if not at its provider's own address: `https://host:port`.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// Whether an S3 bucket's name goes into the path; without it, when an endpoint is set.
    pub path_style: Option<bool>,
    /// The storage class or access tier of new objects.
    pub storage_class: Option<String>,
    /// How S3 encrypts what it stores: `AES256`, `aws:kms`, or `aws:kms:KEY`.
    pub server_encryption: Option<String>,
    /// The profile in the shared AWS files.
    pub profile: Option<String>,
    /// More certificates of authorities to trust, PEM.
    pub ca_file: Option<PathBuf>,
    /// The proxy; without it, the one that the environment names.
    pub proxy: Option<String>,
    /// Whether HTTP without TLS is allowed.
    pub allow_http: bool,
    /// How objects are created.
    pub create: CreateMode,
    /// Bytes of a part of a large object.
    pub part_size: usize,
    /// Parts that a large object may have.
    pub max_parts: usize,
    /// Bytes of large objects in memory.
    pub memory: usize,
    /// Requests at the same time.
    pub concurrency: usize,
    /// Bytes a second, in each direction.
    pub bandwidth: Option<u64>,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long the answer to a request that was sent whole may take to begin.
    pub first_byte_timeout: Duration,
    /// How long a transfer may stand still.
    pub stall_timeout: Duration,
    /// The private key for SSH; without it, what the user's own settings say.
    pub ssh_identity: Option<PathBuf>,
    /// The hosts known to SSH; without it, the user's own file.
    pub ssh_known_hosts: Option<PathBuf>,
    /// How long, and how, a failed request is tried again.
    pub patience: Patience,
    /// The environment, where the providers' own conventions are looked up: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    pub variables: BTreeMap<String, String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            endpoint: None,
            region: None,
            path_style: None,
            storage_class: None,
            server_encryption: None,
            profile: None,
            ca_file: None,
            proxy: None,
            allow_http: false,
            create: CreateMode::Conditional,
            part_size: 8 << 20,
            max_parts: 10_000,
            memory: 64 << 20,
            concurrency: 16,
            bandwidth: None,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(20),
            ssh_identity: None,
            ssh_known_hosts: None,
            patience: Patience::each(Duration::from_secs(60)),
            variables: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for StoreOptions {
    /// Says little: the variables hold secrets, and so may the proxy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("endpoint", &self.endpoint)
            .field("create", &self.create)
            .finish_non_exhaustive()
    }
}

impl StoreOptions {
    /// Sets an option by the name that it has in the settings' table `store` and in a url's query.
    ///
    /// # Errors
    ///
    /// `Usage` for a name that is none, or a value that does not fit.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let text = || Some(value.to_owned());
        let path = || Some(PathBuf::from(value));
        match name {
            "endpoint" => self.endpoint = text(),
            "region" => self.region = text(),
            "path_style" => self.path_style = Some(parse(name, value)?),
            "storage_class" => self.storage_class = text(),
            "server_encryption" => self.server_encryption = text(),
            "profile" => self.profile = text(),
            "ca_file" => self.ca_file = path(),
            "proxy" => self.proxy = text(),
            "allow_http" => self.allow_http = parse(name, value)?,
            "create" => self.create = create_mode(value)?,
            "part_size" => self.part_size = in_memory(name, value, 5 << 20, 5 << 30)?,
            "max_parts" => self.max_parts = between(name, value, 1, 10_000)?,
            "memory" => self.memory = in_memory(name, value, 5 << 20, 1 << 40)?,
            "concurrency" => self.concurrency = between(name, value, 1, 1000)?,
            "bandwidth" => self.bandwidth = Some(bytes(name, value)?).filter(|rate| *rate > 0),
            "connect_timeout" => self.connect_timeout = timeout(name, value)?,
            "first_byte_timeout" => self.first_byte_timeout = timeout(name, value)?,
            "stall_timeout" => self.stall_timeout = timeout(name, value)?,
            "ssh_identity" => self.ssh_identity = path(),
            "ssh_known_hosts" => self.ssh_known_hosts = path(),
            _ => return Err(Error::usage(format!("{name} is not an option of a store"))),
        }
        Ok(())
    }

    /// How large objects are cut.
    pub(super) fn parts(&self) -> Parts {
        Parts::new(self.part_size, self.max_parts, self.memory)
    }

    /// A variable of the environment that is not empty.
    #[cfg_attr(not(feature = "cloud"), allow(dead_code))]
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::usage(format!("{name} cannot be {value:?}")))
}

fn create_mode(value: &str) -> Result<CreateMode> {
    match value {
        "conditional" => Ok(CreateMode::Conditional),
        "check-first" => Ok(CreateMode::CheckFirst),
        _ => Err(Error::usage(format!("create cannot be {value:?}")).hint(
            "'conditional' where the store refuses to replace an object, else 'check-first', which is weaker",
        )),
    }
}

fn between(name: &str, value: &str, least: usize, most: usize) -> Result<usize> {
    let number: usize = parse(name, value)?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(Error::usage(format!("{name} cannot be {value}")).hint(format!("from {least} to {most}")))
}

/// The number of bytes that `name` is set to, with an optional unit: `8MiB`, `500k`, `1G`; powers of 1024 all.
pub fn bytes(name: &str, value: &str) -> Result<u64> {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        _ => None,
    };
    let found =
        number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    found.ok_or_else(|| {
        Error::usage(format!("{name} cannot be {value:?}")).hint("write bytes like 8MiB or 500k")
    })
}

fn in_memory(name: &str, value: &str, least: u64, most: u64) -> Result<usize> {
    let found = bytes(name, value)?;
    if !(least..=most).contains(&found) {
        let hint = format!("from {} MiB to {} MiB", least >> 20, most >> 20);
        return Err(Error::usage(format!("{name} cannot be {value}")).hint(hint));
    }
    usize::try_from(found)
        .map_err(|_| Error::usage(format!("{name} {value} is more than this machine can address")))
}

fn timeout(name: &str, value: &str) -> Result<Duration> {
    let parsed = humantime::parse_duration(value).or_else(|_| value.parse::<u64>().map(Duration::from_secs));
    match parsed {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => {
            Err(Error::usage(format!("{name} cannot be {value:?}")).hint("write it like 500ms, 20s or 2min"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [("0", 0), ("12", 12), ("1k", 1024), ("8MiB", 8 << 20), ("3 GB", 3 << 30)] {
            assert_eq!(bytes("bandwidth", text).unwrap(), expected, "{text}");
        }
        for text in ["", "k", "-1", "1.5M", "1T", "99999999999G", "1 0"] {
            assert_eq!(bytes("bandwidth", text).unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (name, value) in [
            ("part_size", "1MiB"),
            ("part_size", "6GiB"),
            ("max_parts", "0"),
            ("max_parts", "10001"),
            ("concurrency", "0"),
            ("create", "overwrite"),
            ("allow_http", "maybe"),
            ("stall_timeout", "0"),
            ("stall_timeout", "soon"),
            ("partsize", "8MiB"),
        ] {
            assert_eq!(
                StoreOptions::default().set(name, value).unwrap_err().kind(),
                Kind::Usage,
                "{name}={value}"
            );
        }
    }

    #[test]
    fn a_part_is_on_its_way_however_little_memory_there_is() {
        let mut options = StoreOptions::default();
        options.set("memory", "5MiB").unwrap();
        assert_eq!(options.parts().budget.available_permits(), 1);
        options.set("memory", "80MiB").unwrap();
        assert_eq!(options.parts().budget.available_permits(), 7);
    }
}
