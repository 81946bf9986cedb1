//! One request and its answer.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::BodyExt;
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};

use super::body::{Late, Limits, Progress, Receiving, Sending};
use super::client::{Clients, Shape};
use super::refusal::{self, Question, Verdict};
use super::{answer, checksum};

/// How much of a refusal's body is read, or of an answer that says that an upload is complete.
const MOST_THAT_IS_READ: usize = 64 << 10;

/// A request for plain HTTP that nobody allowed.
#[derive(Debug, thiserror::Error)]
#[error("plain HTTP is not allowed: everybody on the way could read and change what is sent")]
pub(super) struct PlainHttp;

/// An error of ours under an [`HttpError`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Own(pub(super) crate::error::Error);

/// Object_store's HTTP, over reqwest.
pub(super) struct Service {
    clients: Arc<Clients>,
    allow_http: bool,
    limits: Limits,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.clients).finish()
    }
}

impl Service {
    pub(super) fn new(clients: Arc<Clients>, allow_http: bool, connect: Duration) -> Service {
        let options = clients.options();
        let limits = Limits { connect, first_byte: options.first_byte_timeout, stall: options.stall_timeout };
        Service { clients, allow_http, limits }
    }

    fn client(&self, url: &reqwest::Url) -> Result<reqwest::Client, HttpError> {
        let secure = url.scheme() == "https";
        if !secure && !self.allow_http {
            return Err(HttpError::new(HttpErrorKind::Unknown, PlainHttp));
        }
        let shape = Shape { secure, direct: is_metadata(url), connect: self.limits.connect };
        self.clients.get(shape).map_err(|error| HttpError::new(HttpErrorKind::Unknown, Own(error)))
    }

    /// Sends the request and waits for the head of the answer.
    async fn send(
        &self,
        parts: http::request::Parts,
        pieces: Vec<Bytes>,
    ) -> Result<http::Response<Receiving>, HttpError> {
        let url: reqwest::Url = match parts.uri.to_string().parse() {
            Ok(url) => url,
            Err(_) => return Err(own(crate::error::Error::bug("a request's address is not a URL"))),
        };
        let client = self.client(&url)?;
        let length = pieces.iter().map(Bytes::len).sum();
        let progress = Arc::new(Progress::new(length));
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if length > 0 {
            *request.body_mut() = Some(reqwest::Body::wrap(Sending::new(pieces, progress.clone())));
        } else {
            *request.body_mut() = Some(Bytes::new().into());
        }
        let head = match select(pin!(client.execute(request)), pin!(progress.overdue(&self.limits))).await {
            Either::Left((head, _)) => head.map_err(|error| self.failed(error))?,
            Either::Right((late, _)) => return Err(late.into()),
        };
        let answer: http::Response<reqwest::Body> = head.into();
        Ok(answer.map(|body| Receiving::new(body, self.limits.stall)))
    }

    fn failed(&self, error: reqwest::Error) -> HttpError {
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Late::Connect(self.limits.connect).into(),
            (true, false) => HttpError::new(HttpErrorKind::Connect, error.without_url()),
            (false, true) => HttpError::new(HttpErrorKind::Timeout, error.without_url()),
            (false, false) => interrupted(error),
        }
    }

    /// What a short body says, as far as it came within `limit`; and whether that is all of it.
    async fn read(&self, mut body: Receiving, limit: Duration) -> (Vec<u8>, Result<(), HttpError>) {
        let mut bytes = Vec::new();
        let whole = {
            let reading = async {
                while bytes.len() < MOST_THAT_IS_READ
                    && let Some(frame) = body.frame().await
                {
                    if let Ok(data) = frame?.into_data() {
                        bytes.extend_from_slice(&data);
                    }
                }
                Ok(())
            };
            match tokio::time::timeout(limit, reading).await {
                Ok(whole) => whole,
                Err(_) => Err(Late::Receiving(limit).into()),
            }
        };
        bytes.truncate(MOST_THAT_IS_READ);
        (bytes, whole)
    }

    /// An answer that is no success: as it is if object_store is to interpret it, or as an error.
    async fn unsuccessful(
        &self,
        question: Question,
        answer: http::Response<Receiving>,
    ) -> Result<HttpResponse, HttpError> {
        let (head, body) = answer.into_parts();
        let (bytes, whole) = self.read(body, self.limits.first_byte).await;
        match refusal::judge(&question, head.status, &head.headers, &bytes) {
            Verdict::Refused(refusal) => Err(HttpError::new(HttpErrorKind::Unknown, refusal)),
            Verdict::Pass => {
                // Half an answer proves nothing, least of all that an object is absent.
                whole?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Ok(HttpResponse::from_parts(head, HttpResponseBody::from(text)))
            }
        }
    }

    /// A success that may be none: S3 begins to answer before it has put a large object together.
    async fn completed(&self, answer: http::Response<Receiving>) -> Result<HttpResponse, HttpError> {
        let (head, body) = answer.into_parts();
        // S3 sends a blank now and then while it works: only a stall ends this.
        let (bytes, whole) = self.read(body, Duration::MAX).await;
        whole?;
        if answer::is_error(&bytes) {
            let refusal = refusal::read(head.status, &head.headers, &bytes);
            return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
        }
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(bytes)))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let pieces = pieces(body).await?;
        let question = Question::of(&parts);
        let asked = (parts.method == http::Method::PUT).then(|| parts.headers.clone());
        let sent = if asked.is_some() { pieces.clone() } else { Vec::new() };
        let answer = self.send(parts, pieces).await?;
        if !answer.status().is_success() {
            return self.unsuccessful(question, answer).await;
        }
        if question.completes {
            return self.completed(answer).await;
        }
        if let Some(asked) = asked {
            checksum::compare(&asked, &sent, answer.headers())
                .map_err(|wrong| HttpError::new(HttpErrorKind::Unknown, wrong))?;
        }
        Ok(answer.map(HttpResponseBody::new))
    }
}

/// The pieces of a request's body, which is in memory.
async fn pieces(mut body: HttpRequestBody) -> Result<Vec<Bytes>, HttpError> {
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            pieces.push(bytes);
        }
    }
    Ok(pieces)
}

/// A connection that broke after it was made.
pub(super) fn interrupted(error: reqwest::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Interrupted, error.without_url())
}

fn own(error: crate::error::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, Own(error))
}

/// Whether a URL is that of a cloud's metadata service, which is on this machine or next to it: no proxy knows it.
fn is_metadata(url: &reqwest::Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    if host.eq_ignore_ascii_case("metadata.google.internal") {
        return true;
    }
    match host.trim_matches(['[', ']']).parse() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => false,
    }
}
