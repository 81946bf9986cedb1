//! The alphabet of keys; what passes here cannot leave an archive's root.

use object_store::path::Path;

use crate::error::{Error, Result};

/// Whether `name` can be one segment of a key.
pub(super) fn is_segment(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name != "." && name != ".." && name.bytes().all(allowed)
}

/// Whether `key` can name an object.
pub(super) fn is_key(key: &str) -> bool {
    key.split('/').all(is_segment)
}

/// The path of an object; a name outside of the contract's alphabet is a mistake of the caller.
pub(super) fn object(key: &str) -> Result<Path> {
    if !is_key(key) {
        return Err(Error::usage(format!("{key:?} cannot name an object in an archive"))
            .hint("use A-Z a-z 0-9 . _ - in segments between single slashes"));
    }
    Path::parse(key).map_err(|source| Error::bug(format!("naming the object {key}")).because(source))
}

/// The path of a prefix, `None` for the whole archive.
pub(super) fn prefix(prefix: &str) -> Result<Option<Path>> {
    if prefix.is_empty() { Ok(None) } else { object(prefix).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn only_the_alphabet_passes() {
        for key in ["a", "a/b", "archive.json", "c-1/7_0/wal/00000001.history", "..."] {
            assert_eq!(object(key).unwrap().as_ref(), key);
        }
        let long = "a//b";
        let rejected = ["", "/", "/a", "a/", long, ".", "..", "a/../b", "../a", "a/./b", "a b", "a#1", "ä"];
        for key in rejected.into_iter().chain(["a\0b", "a\\b", "a%2Fb", "a\n", "~", "a:b"]) {
            assert_eq!(object(key).unwrap_err().kind(), Kind::Usage, "{key:?}");
        }
        assert_eq!(prefix("").unwrap(), None);
    }
}
