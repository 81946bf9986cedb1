//! Answers that are no success.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::answer;
use super::foreign::{self, Foreign};
use super::question::Question;
use super::trouble::find;
use crate::error::Kind;

/// No store is obeyed that wants to be left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a store answered that is no success, and that object_store does not interpret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Refusal {
    /// The status of HTTP; 200 when S3 refused to complete an upload after it had begun to answer.
    pub status: u16,
    /// The store's own name of the reason.
    pub code: Option<String>,
    /// What the store says about it, in one line.
    pub message: Option<String>,
    /// How long the store wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The region where the bucket is, when the store says so.
    pub region: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        match (&self.code, reason) {
            (Some(code), _) => write!(f, " {code}")?,
            (None, Some(reason)) => write!(f, " {reason}")?,
            (None, None) => {}
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        match &self.region {
            Some(region) => write!(f, " (the bucket is in region {region})"),
            None => Ok(()),
        }
    }
}

impl StdError for Refusal {}

/// The [`Refusal`] among the causes of an error of object_store.
pub(in super::super) fn refused<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Refusal> {
    find(error)
}

/// What becomes of an answer that is no success.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is for object_store to interpret.
    Pass,
    Refused(Refusal),
    /// Nobody knows who answered.
    Foreign(Foreign),
}

pub(super) fn judge(question: &Question, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let refusal = read(status, headers, body);
    let code = refusal.code.as_deref().unwrap_or_default();
    let known = status != StatusCode::NOT_FOUND || NO_STORE.contains(&code) || code == NO_UPLOAD;
    if !known && !question.metadata && !foreign::proves_absence(question, headers, body) {
        let found = "that does not say that there is no such object";
        return Verdict::Foreign(Foreign::new(question, status, found, body));
    }
    let pass = match status.as_u16() {
        304 | 412 | 416 => true,
        404 => !NO_STORE.contains(&code) && code != NO_UPLOAD,
        // Only these mean that there is an object of that name. Azure may name the lock of the one that is there.
        409 => {
            code.is_empty()
                || code.ends_with("AlreadyExists")
                || (question.creates && code == "BlobImmutableDueToPolicy")
        }
        403 => question.token,
        _ => false,
    };
    if pass { Verdict::Pass } else { Verdict::Refused(refusal) }
}

/// Everything that an answer says about why it is no success.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let said = answer::said(body);
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Refusal {
        status: status.as_u16(),
        // Answers to HEAD have no body, but Azure's have this header.
        code: header("x-ms-error-code").and_then(answer::word).or(said.code),
        message: said.message,
        retry_after: header("retry-after").and_then(|wait| retry_after(wait, header("date"))),
        region: header("x-amz-bucket-region").and_then(answer::word).or(said.region),
    }
}

/// Seconds, or a date: then the store's own date says how far that is, as this machine's clock may be wrong.
fn retry_after(wait: &str, date: Option<&str>) -> Option<Duration> {
    let parse = |date: &str| DateTimeParser::new().parse_timestamp(date.trim()).ok();
    let wait = match wait.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = parse(wait)?;
            let now = date.and_then(parse).unwrap_or_else(Timestamp::now);
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// There is no such bucket, container or file system.
const NO_STORE: &[&str] = &[
    "NoSuchBucket",
    "ContainerNotFound",
    "FilesystemNotFound",
    "ResourceNotFound",
    "AccountNotFound",
    "NoSuchAccount",
];

/// There is no such upload, or no longer. object_store takes it for a missing object with S3, for trouble with Google.
const NO_UPLOAD: &str = "NoSuchUpload";

/// Reasons that pass, whatever their status.
const PASSING: &[&str] = &[
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "ServerBusy",
    "RequestTimeout",
    "OperationTimedOut",
    "OperationAborted",
    "ConditionalRequestConflict",
    "RequestLimitExceeded",
    "TooManyRequests",
    "BandwidthLimitExceeded",
    // Credentials are read again at the next attempt.
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    // What arrived is not what was sent.
    "BadDigest",
    "IncompleteBody",
    "Md5Mismatch",
    "Crc64Mismatch",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
];

/// Reasons of 400 that are about credentials.
const CREDENTIALS: &[&str] = &[
    "InvalidToken",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidIdentityToken",
    "IDPRejectedClaim",
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
];

/// The request went to the wrong region.
const ELSEWHERE: &[&str] = &[
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
];

impl Refusal {
    /// What callers can do about it: `Unreachable` passes, all others do not.
    pub(in super::super) fn kind(&self) -> Kind {
        let code = self.code.as_deref().unwrap_or_default();
        if PASSING.contains(&code) || code.contains("Throttl") {
            return Kind::Unreachable;
        }
        if code == NO_UPLOAD {
            return Kind::Absent;
        }
        if NO_STORE.contains(&code) || CREDENTIALS.contains(&code) {
            return Kind::Denied;
        }
        match self.status {
            501 => Kind::Usage,
            200..=299 | 408 | 425 | 429 | 500..=599 => Kind::Unreachable,
            401 | 403 | 404 | 407 | 409 => Kind::Denied,
            _ => Kind::Usage,
        }
    }

    /// What to do about it.
    pub(in super::super) fn hint(&self) -> Option<String> {
        let code = self.code.as_deref().unwrap_or_default();
        let hint = match code {
            "RequestTimeTooSkewed" | "RequestExpired" => "this machine's clock is wrong: set it".to_owned(),
            "InvalidAccessKeyId" => "the store does not know this access key: is it that of another store?".into(),
            "SignatureDoesNotMatch" => "the secret key does not belong to the access key, or something on the way \
                 changes requests"
                .to_owned(),
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
                "the credentials have expired; they are read again at each attempt".to_owned()
            }
            "AccessDenied" | "AuthorizationPermissionMismatch" | "forbidden" => {
                "give these credentials the right to read, write and list; without the right to list, S3 answers so \
                 for an object that is not there, too"
                    .to_owned()
            }
            _ if NO_STORE.contains(&code) => {
                "there is no bucket or container of that name: is the URL right?".to_owned()
            }
            _ if ELSEWHERE.contains(&code) || matches!(self.status, 300..=399) => match &self.region {
                Some(region) => format!("set the store's region to {region}"),
                None => "is the store's region or endpoint right?".to_owned(),
            },
            _ => match self.status {
                401 | 403 => "are these the right credentials, and do they allow this?".to_owned(),
                407 => "the proxy wants credentials: write them into store.proxy".to_owned(),
                400 if self.region.is_some() => {
                    format!("set the store's region to {}", self.region.as_deref().unwrap_or_default())
                }
                405 | 501 => "this store cannot do that".to_owned(),
                _ => return None,
            },
        };
        Some(hint)
    }
}
