//! Where a request went, as messages name it: without path, query, user and password.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use object_store::client::HttpError;

use super::trouble::find;

/// Scheme, host and port of a store, and the proxy on the way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Arc<str>);

impl Place {
    pub(super) fn new(url: &reqwest::Url, proxy: Option<&Place>) -> Place {
        let port = url.port_or_known_default().map_or(String::new(), |port| format!(":{port}"));
        let place = format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default());
        Place(match proxy {
            Some(proxy) => format!("{place} through the proxy {proxy}").into(),
            None => place.into(),
        })
    }

    /// The error, with its place, unless it has one.
    pub(super) fn of(&self, error: HttpError) -> HttpError {
        if find::<At>(&error).is_some() {
            return error;
        }
        HttpError::new(error.kind(), At { place: self.clone(), error })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happened there.
#[derive(Debug)]
pub(super) struct At {
    pub place: Place,
    pub error: HttpError,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for At {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.error)
    }
}
