//! Answers that no store gives: a proxy's, a login page, another server's. Nothing that they say is believed.

use http::{HeaderMap, Method, StatusCode};

use super::answer;
use super::question::Question;

/// Longest page of a listing: the longest keys, a thousand or five thousand of them, take less.
pub(super) const LONGEST_PAGE: usize = 16 << 20;

/// The answer is not a store's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a store's, but perhaps that of a proxy or of another server: {0}")]
pub(super) struct Foreign(String);

impl Foreign {
    /// `found`: what a store's answer would not have.
    pub(super) fn new(question: &Question, status: StatusCode, found: &str, body: &[u8]) -> Foreign {
        let excerpt = answer::excerpt(&String::from_utf8_lossy(body));
        let excerpt = if excerpt.is_empty() { excerpt } else { format!(": {excerpt}") };
        Foreign(format!("{status} to {} {found}{excerpt}", question.method))
    }
}

/// Whether an answer of 404 is the store's own word that there is no such object.
pub(super) fn proves_absence(question: &Question, headers: &HeaderMap, body: &[u8]) -> bool {
    const MISSING: &[&str] = &["NoSuchKey", "BlobNotFound", "PathNotFound"];
    let header = headers.get("x-ms-error-code").and_then(|value| value.to_str().ok());
    match header {
        Some(code) => MISSING.contains(&code),
        // Answers to HEAD have no body.
        None if question.method == Method::HEAD => !question.azure,
        None => {
            let code = answer::said(body).code;
            answer::is_error(body) && code.is_some_and(|code| MISSING.contains(&code.as_str()))
        }
    }
}

/// What is wrong with a page of a listing, if anything.
pub(super) fn bad_page(root: &str, body: &[u8]) -> Option<&'static str> {
    if body.len() > LONGEST_PAGE {
        return Some("is longer than any page of a listing");
    }
    if answer::root(body).as_deref() != Some(root) {
        return Some("is no listing");
    }
    let text = String::from_utf8_lossy(body);
    let has = |name: &str| answer::element(&text, name).map(str::trim).unwrap_or_default();
    let truncated = root == "ListBucketResult" && has("IsTruncated").eq_ignore_ascii_case("true");
    (truncated && has("NextContinuationToken").is_empty())
        .then_some("is a listing that has more, and does not say how to go on")
}

/// Whether a body holds answers to the requests of a batch.
pub(super) fn is_batch(headers: &HeaderMap, body: &[u8]) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/mixed"))
        && body.windows(9).any(|window| window == b"HTTP/1.1 ")
}
