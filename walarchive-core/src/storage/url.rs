//! Which store an archive's url names.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::key;
use crate::error::{Error, Result};

/// A store, as a url names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) place: Place,
    /// Options of this store alone, by name.
    pub(super) options: Vec<(String, String)>,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory.
    Local(PathBuf),
    /// A bucket or container, and what stands before all keys in it.
    Cloud { provider: Provider, bucket: String, prefix: String },
    /// A directory of another machine; its path is absolute, or begins with `/~/` for the user's home there.
    Sftp { user: Option<String>, host: String, port: Option<u16>, path: String },
}

/// Whose interface a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    S3,
    Google,
    Azure,
}

impl Provider {
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Provider::S3 => "s3",
            Provider::Google => "gs",
            Provider::Azure => "az",
        }
    }
}

/// A prefix may take half of the 1024 bytes that stores allow for a name.
const LONGEST_PREFIX: usize = 512;

const KNOWN: &str = "file:///srv/archive, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, sftp://user@host/srv/archive";

impl Address {
    /// Reads a url. Messages never show more than its scheme where it may hold credentials.
    pub(super) fn parse(url: &str) -> Result<Address> {
        if url.starts_with('/') {
            return Ok(Address { place: Place::Local(PathBuf::from(url)), options: Vec::new() });
        }
        let (scheme, rest) = url.split_once(':').ok_or_else(|| not_a_path(url, "is not a url"))?;
        match scheme.to_ascii_lowercase().as_str() {
            "file" => Ok(Address { place: Place::Local(local(url, rest)?), options: Vec::new() }),
            "s3" | "s3a" => cloud(Provider::S3, rest),
            "gs" => cloud(Provider::Google, rest),
            "az" | "azure" => cloud(Provider::Azure, rest),
            "sftp" | "ssh" => sftp(rest),
            _ => Err(Error::usage(format!("there is no store for {scheme}://…"))
                .hint(format!("known are {KNOWN}"))),
        }
    }
}

fn local(url: &str, rest: &str) -> Result<PathBuf> {
    let path = rest.strip_prefix("//localhost/").map(|path| format!("/{path}"));
    let path = path.or_else(|| rest.strip_prefix("//").map(str::to_owned));
    let path = path.ok_or_else(|| not_a_path(url, "has no // after its scheme"))?;
    if !path.starts_with('/') {
        return Err(not_a_path(url, "names no absolute path"));
    }
    if path.contains(['?', '#']) {
        return Err(not_a_path(url, "has a query or fragment"));
    }
    let bytes = decode(&path).ok_or_else(|| not_a_path(url, "has a broken percent code"))?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn not_a_path(url: &str, found: &str) -> Error {
    Error::usage(format!("the archive's place {url:?} {found}"))
        .hint("write file:///absolute/path, with % as %25, ? as %3F and # as %23, or /absolute/path")
}

fn cloud(provider: Provider, rest: &str) -> Result<Address> {
    let scheme = provider.scheme();
    let wrong = |found: &str| {
        Error::usage(format!("the archive's url {scheme}://… {found}"))
            .hint(format!("write {scheme}://bucket/prefix; credentials come from the environment, as the provider's own tools take them"))
    };
    let (authority, path, options) = parts(rest).ok_or_else(|| wrong("cannot be read"))?;
    if authority.contains(['@', ':']) {
        return Err(wrong("holds a user, password or port"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'$');
    if authority.is_empty() || !authority.bytes().all(allowed) {
        return Err(wrong("names no bucket"));
    }
    let prefix = path.trim_matches('/').to_owned();
    if !prefix.is_empty() && !key::is_key(&prefix) {
        return Err(
            wrong("has a prefix that cannot be used").hint("use A-Z a-z 0-9 . _ - between single slashes")
        );
    }
    if prefix.len() > LONGEST_PREFIX {
        return Err(wrong(&format!("has a prefix of more than {LONGEST_PREFIX} bytes")));
    }
    Ok(Address { place: Place::Cloud { provider, bucket: authority, prefix }, options })
}

fn sftp(rest: &str) -> Result<Address> {
    let wrong = |found: &str| {
        Error::usage(format!("the archive's url sftp://… {found}"))
            .hint("write sftp://user@host/srv/archive or sftp://host:port/~/archive; SSH's own settings and keys are used")
    };
    let (authority, path, options) = parts(rest).ok_or_else(|| wrong("cannot be read"))?;
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, authority.as_str()),
    };
    if user.as_ref().is_some_and(|user| user.is_empty() || user.contains(':') || user.starts_with('-')) {
        return Err(wrong("has a user that cannot be used; passwords are not taken here"));
    }
    let (host, port) = host_and_port(place).ok_or_else(|| wrong("has a port that is none"))?;
    if host.is_empty() || host.starts_with('-') || host.contains(char::is_whitespace) {
        return Err(wrong("names no host"));
    }
    if path.trim_matches('/').is_empty() {
        return Err(wrong("names no directory"));
    }
    Ok(Address { place: Place::Sftp { user, host, port, path }, options })
}

fn host_and_port(place: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = rest.strip_prefix(':').map(str::parse).transpose().ok()?;
        return Some((host.to_owned(), port));
    }
    match place.split_once(':') {
        Some((host, port)) => Some((host.to_owned(), Some(port.parse().ok()?))),
        None => Some((place.to_owned(), None)),
    }
}

type Parts = (String, String, Vec<(String, String)>);

/// Authority, path (with its first slash) and query of what follows a scheme and its colon, decoded.
fn parts(rest: &str) -> Option<Parts> {
    let rest = rest.strip_prefix("//")?;
    if rest.contains('#') {
        return None;
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let mut options = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        options.push((decoded(name)?, decoded(value)?));
    }
    Some((decoded(authority)?, decoded(path)?, options))
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(decode(text)?).ok()
}

/// The bytes behind the percent codes; none for a broken code or a zero byte.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            plain => plain,
        });
    }
    (!decoded.contains(&0)).then_some(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn place(url: &str) -> Place {
        Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error:?}")).place
    }

    #[test]
    fn directories() {
        for (url, path) in [
            ("file:///var/lib/archive", "/var/lib/archive"),
            ("FILE:///a", "/a"),
            ("file://localhost/a", "/a"),
            ("file:///a%20b%25/%C3%BC", "/a b%/ü"),
            ("file:///a b", "/a b"),
            ("/a b%20", "/a b%20"),
        ] {
            assert_eq!(place(url), Place::Local(PathBuf::from(path)), "{url}");
        }
    }

    #[test]
    fn buckets() {
        let cloud = |provider, bucket: &str, prefix: &str| Place::Cloud {
            provider,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(place("s3://b-1.x"), cloud(Provider::S3, "b-1.x", ""));
        assert_eq!(place("S3://b/a/b/"), cloud(Provider::S3, "b", "a/b"));
        assert_eq!(place("gs://b_1/a"), cloud(Provider::Google, "b_1", "a"));
        assert_eq!(place("az://$root/a"), cloud(Provider::Azure, "$root", "a"));
        let address = Address::parse("s3://b/p?endpoint=https%3A%2F%2Fh%3A9000&region=x").unwrap();
        let options = [("endpoint", "https://h:9000"), ("region", "x")];
        assert_eq!(address.options, options.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn no_prefix_takes_the_room_of_keys() {
        for scheme in ["s3", "gs", "az"] {
            let parse = |length: usize| Address::parse(&format!("{scheme}://bucket/{}", "p".repeat(length)));
            parse(512).unwrap();
            let error = parse(513).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.story().contains("512"), "{}", error.story());
        }
    }

    #[test]
    fn machines() {
        let sftp = |user: Option<&str>, host: &str, port, path: &str| Place::Sftp {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        };
        assert_eq!(place("sftp://u@h/srv/a b"), sftp(Some("u"), "h", None, "/srv/a b"));
        assert_eq!(place("sftp://h:2222/~/a"), sftp(None, "h", Some(2222), "/~/a"));
        assert_eq!(place("sftp://u@[::1]:22/a%20"), sftp(Some("u"), "::1", Some(22), "/a "));
    }

    #[test]
    fn everything_else_is_refused() {
        for url in [
            "",
            "archive",
            "./archive",
            "file:",
            "file:/a",
            "file://",
            "file://a",
            "file://host/a",
            "file:///a%",
            "file:///a%2",
            "file:///a%zz",
            "file:///a%00",
            "file:///a?b",
            "file:///a#b",
            "C:\\archive",
            "http://b/p",
            "s3:",
            "s3:b",
            "s3://",
            "s3:///p",
            "s3://b//p/q//r",
            "s3://b/a b",
            "s3://b/../c",
            "s3://b/p#f",
            "s3://b/p?endpoint",
            "s3://b:80/p",
            "s3://b%00/p",
            "sftp://h",
            "sftp://h/",
            "sftp:///a",
            "sftp://u:p@h/a",
            "sftp://-oProxyCommand=x/a",
            "sftp://-u@h/a",
            "sftp://h:x/a",
            "sftp://h:99999/a",
            "sftp://[::1/a",
        ] {
            assert_eq!(Address::parse(url).unwrap_err().kind(), Kind::Usage, "{url}");
        }
    }

    #[test]
    fn urls_keep_their_secrets() {
        for url in ["s3://key:secret@bucket/path", "sftp://user:secret@host/a", "ftp://user:secret@host/a"] {
            let error = Address::parse(url).unwrap_err();
            assert!(!error.story().contains("secret"), "{}", error.story());
        }
    }
}
