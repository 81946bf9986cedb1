//! What an error of a store means for callers.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::iter::successors;
use std::time::Duration;

use object_store::client::HttpError;

use super::body::Late;
use super::checksum::WrongChecksum;
use super::foreign::Foreign;
use super::place::At;
use super::refused;
use super::service::{Own, PlainHttp};
use crate::error::{Error, Kind};

/// What became of a request, without secrets: the place of an error of object_store, whose text may hold those of a URL.
#[derive(Debug)]
pub(in super::super) struct Trouble {
    /// What callers can do about it.
    pub kind: Kind,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// How long the store wants to be left alone.
    pub wait: Option<Duration>,
    /// What is found again by `refused` and `wrong_checksum`.
    cause: Option<Cause>,
}

type Cause = Box<dyn StdError + Send + Sync>;

impl Trouble {
    /// The error of `attempt`, such as `storing wal/x`.
    pub(in super::super) fn error(self, attempt: impl Display) -> Error {
        let error = Error::new(self.kind, format!("{attempt}: {}", self.what));
        let error = self.hint.into_iter().fold(error, Error::hint);
        let error = self.wait.into_iter().fold(error, Error::wait);
        self.cause.into_iter().fold(error, Error::because)
    }
}

/// What came up between here and the store, or at the store; `None` for what object_store itself found or interpreted
/// (an object that is not there, or already there).
pub(in super::super) fn trouble(error: &(dyn StdError + 'static)) -> Option<Trouble> {
    if let Some(refusal) = refused(error) {
        let (kind, what) = (refusal.kind(), refusal.to_string());
        return Some(Trouble {
            kind,
            what,
            hint: refusal.hint(),
            wait: refusal.retry_after,
            cause: Some(Box::new(refusal.clone())),
        });
    }
    if let Some(wrong) = find::<WrongChecksum>(error) {
        let cause: Option<Cause> = Some(Box::new(wrong.clone()));
        return Some(Trouble {
            kind: Kind::Unreachable,
            what: wrong.to_string(),
            hint: None,
            wait: None,
            cause,
        });
    }
    network_story(error)
}

/// What came up before the store could answer.
fn network_story(error: &(dyn StdError + 'static)) -> Option<Trouble> {
    let http: &HttpError = find(error)?;
    let (http, place) = match find::<At>(http) {
        Some(at) => (&at.error, format!(" (at {})", at.place)),
        None => (http, String::new()),
    };
    let because = |kind, what: String, hint: Option<&str>| {
        let what = format!("{what}{place}");
        Some(Trouble { kind, what, hint: hint.map(str::to_owned), wait: None, cause: None })
    };
    if let Some(late) = find::<Late>(http) {
        return because(Kind::Unreachable, late.to_string(), None);
    }
    if let Some(foreign) = find::<Foreign>(http) {
        return because(Kind::Unreachable, foreign.to_string(), None);
    }
    if let Some(plain) = find::<PlainHttp>(http) {
        let hint = "write https:// for the endpoint, or set store.allow_http";
        return because(Kind::Usage, plain.to_string(), Some(hint));
    }
    if let Some(Own(error)) = find::<Own>(http) {
        return because(error.kind(), error.story(), None);
    }
    if let Some(tls) = find::<rustls::Error>(http) {
        let (kind, hint) = tls_kind(tls);
        return because(kind, format!("TLS: {tls}"), hint);
    }
    let story = story(http);
    if story.contains("proxy authorization required") {
        let hint = "write user and password into store.proxy: http://user:password@host:port";
        return because(Kind::Denied, story, Some(hint));
    }
    because(Kind::Unreachable, story, None)
}

/// What does not get better by trying again has a hint.
fn tls_kind(error: &rustls::Error) -> (Kind, Option<&'static str>) {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls, InvalidMessage};
    let hint = match error {
        Tls::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "renew the store's certificate, or set this machine's clock"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "write the endpoint with a name for which the store's certificate holds"
            }
            _ => "if this is your own store, name its certificate authority in store.ca_file",
        },
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => "does the store speak TLS on this port?",
        Tls::AlertReceived(Alert::HandshakeFailure | Alert::ProtocolVersion) | Tls::PeerIncompatible(_) => {
            "the store does not agree on TLS 1.2 or 1.3"
        }
        _ => return (Kind::Unreachable, None),
    };
    (Kind::Usage, Some(hint))
}

/// The causes below an HTTP error, without those that say nothing.
fn story(http: &HttpError) -> String {
    const NOTHING: &[&str] = &["error sending request", "client error (", "request or response body error"];
    let mut line = String::new();
    for cause in chain(http).skip(1) {
        let text = cause.to_string();
        if NOTHING.iter().any(|nothing| text.starts_with(nothing)) || line.contains(&text) {
            continue;
        }
        line = if line.is_empty() { text } else { format!("{line}: {text}") };
    }
    if line.is_empty() { "the connection to the store broke".to_owned() } else { line }
}

/// The first cause of type `T`.
pub(super) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// An error and its causes. The standard library leaves out what an `io::Error` is made of.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        let error: &'a (dyn StdError + 'static) = *error;
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}
