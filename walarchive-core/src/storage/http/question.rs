//! What must be known of a request to judge its answer.

use http::{HeaderMap, Method};

/// A request, as far as its answer depends on it.
#[derive(Debug)]
pub(super) struct Question {
    pub method: Method,
    /// It asks for a token of AWS's metadata service, whose refusal object_store understands.
    pub token: bool,
    /// It creates an object only if there is none.
    pub creates: bool,
    /// It speaks Azure's language.
    pub azure: bool,
    /// It goes to a machine's metadata service, which is no store.
    pub metadata: bool,
    pub success: Success,
}

/// What the answer to a request is when it succeeded at a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Success {
    /// Bytes that mean nothing here.
    Any,
    /// Nothing but its head, with one of these statuses.
    Head(&'static [u16]),
    /// One page of a listing: a document with this root.
    Page(&'static str),
    /// That an upload in parts is complete, or an error that came up after the answer had begun.
    Completion,
    /// Azure's answers to several requests at once.
    Batch,
}

impl Question {
    /// `metadata`: whether it goes to a machine's metadata service.
    pub(super) fn of(parts: &http::request::Parts, metadata: bool) -> Question {
        let query = parts.uri.query().unwrap_or_default();
        let token = parts.headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds");
        let azure = speaks_azure(&parts.headers);
        let success = if token || metadata { Success::Any } else { success(&parts.method, query, azure) };
        Question {
            method: parts.method.clone(),
            token,
            creates: parts.headers.get(http::header::IF_NONE_MATCH).is_some_and(|value| value == "*"),
            azure,
            metadata: token || metadata,
            success,
        }
    }
}

fn speaks_azure(headers: &HeaderMap) -> bool {
    headers.contains_key("x-ms-version") || headers.contains_key("x-ms-blob-type")
}

fn success(method: &Method, query: &str, azure: bool) -> Success {
    let has = |wanted: &str| query.split('&').any(|pair| pair == wanted);
    let names = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match *method {
        Method::PUT if azure => Success::Head(&[201]),
        Method::PUT => Success::Head(&[200]),
        Method::DELETE => Success::Head(&[200, 202, 204]),
        Method::POST if names("uploadId") => Success::Completion,
        Method::POST if azure && has("comp=batch") => Success::Batch,
        Method::GET if has("list-type=2") => Success::Page("ListBucketResult"),
        Method::GET if azure && has("comp=list") => Success::Page("EnumerationResults"),
        Method::GET if names("uploads") => Success::Page("ListMultipartUploadsResult"),
        _ => Success::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_known_by_its_request() {
        let of = |method: Method, query: &str, azure: bool| success(&method, query, azure);
        assert_eq!(of(Method::PUT, "", false), Success::Head(&[200]));
        assert_eq!(of(Method::PUT, "comp=block&blockid=x", true), Success::Head(&[201]));
        assert_eq!(of(Method::POST, "uploads=", false), Success::Any);
        assert_eq!(of(Method::POST, "uploadId=x", false), Success::Completion);
        assert_eq!(of(Method::POST, "restype=container&comp=batch", true), Success::Batch);
        assert_eq!(of(Method::GET, "list-type=2&prefix=a", false), Success::Page("ListBucketResult"));
        assert_eq!(of(Method::GET, "restype=container&comp=list", true), Success::Page("EnumerationResults"));
        for query in ["uploads", "uploads=&X-Amz-Date=1"] {
            assert_eq!(of(Method::GET, query, false), Success::Page("ListMultipartUploadsResult"));
        }
        assert_eq!(of(Method::GET, "versionId=uploads", false), Success::Any);
    }
}
