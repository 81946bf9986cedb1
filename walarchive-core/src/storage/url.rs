//! Which store an archive's url names.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{LocalStorage, Storage};
use crate::error::{Error, Result};

/// Opens the store at `url`: `file:///absolute/path`, percent-encoded, or a plain absolute path as it is.
///
/// # Errors
///
/// `Usage` for any other url, else as [`LocalStorage::open`].
pub fn open_url(url: &str) -> Result<Arc<dyn Storage>> {
    Ok(Arc::new(LocalStorage::open(local_path(url)?)?))
}

/// Opens the store at `url`, which is made when it is not there yet.
///
/// # Errors
///
/// `Usage` for a url that [`open_url`] does not know, else as [`LocalStorage::create_root`].
pub fn create_url(url: &str) -> Result<Arc<dyn Storage>> {
    Ok(Arc::new(LocalStorage::create_root(local_path(url)?)?))
}

fn local_path(url: &str) -> Result<PathBuf> {
    if url.starts_with('/') {
        return Ok(PathBuf::from(url));
    }
    // Never the whole url of another scheme: it may hold credentials.
    let (scheme, rest) = url.split_once(':').ok_or_else(|| unknown(url, "is not a url"))?;
    if !scheme.eq_ignore_ascii_case("file") {
        let message = format!("this build has no store for {scheme}://…; known: file://");
        return Err(Error::usage(message));
    }
    let path = rest.strip_prefix("//localhost/").map(|path| format!("/{path}"));
    let path = path.or_else(|| rest.strip_prefix("//").map(str::to_owned));
    let path = path.ok_or_else(|| unknown(url, "has no // after its scheme"))?;
    if !path.starts_with('/') {
        return Err(unknown(url, "names no absolute path"));
    }
    if path.contains(['?', '#']) {
        return Err(unknown(url, "has a query or fragment"));
    }
    let bytes = decode(&path).ok_or_else(|| unknown(url, "has a broken percent code"))?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn unknown(url: &str, found: &str) -> Error {
    Error::usage(format!("the archive's place {url:?} {found}"))
        .hint("write file:///absolute/path, with % as %25, ? as %3F and # as %23, or /absolute/path")
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

    #[test]
    fn file_urls_and_paths() {
        for (url, path) in [
            ("file:///var/lib/archive", "/var/lib/archive"),
            ("FILE:///a", "/a"),
            ("file://localhost/a", "/a"),
            ("file:///a%20b%25/%C3%BC", "/a b%/ü"),
            ("file:///a b", "/a b"),
            ("/a b%20", "/a b%20"),
        ] {
            assert_eq!(local_path(url).unwrap(), PathBuf::from(path), "{url}");
        }
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
        ] {
            assert_eq!(local_path(url).unwrap_err().kind(), Kind::Usage, "{url}");
        }
    }

    #[test]
    fn other_schemes_keep_their_secrets() {
        let error = open_url("s3://key:secret@bucket/path").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(error.story(), "this build has no store for s3://…; known: file://");
    }
}
