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
use super::foreign::{self, Foreign, LONGEST_PAGE};
use super::place::Place;
use super::question::{Question, Success};
use super::refusal::{self, Verdict};
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
        url: reqwest::Url,
        pieces: Vec<Bytes>,
        place: &Place,
    ) -> Result<http::Response<Receiving>, HttpError> {
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
        Ok(answer.map(|body| Receiving::new(body, self.limits.stall, place.clone())))
    }

    fn failed(&self, error: reqwest::Error) -> HttpError {
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Late::Connect(self.limits.connect).into(),
            (true, false) => HttpError::new(HttpErrorKind::Connect, error.without_url()),
            (false, true) => HttpError::new(HttpErrorKind::Timeout, error.without_url()),
            (false, false) => interrupted(error),
        }
    }

    /// What a body says, as far as it came within `limit`, a little more than `most` bytes at most; and whether
    /// it broke off.
    async fn read(
        &self,
        mut body: Receiving,
        limit: Duration,
        most: usize,
    ) -> (Vec<u8>, Result<(), HttpError>) {
        let mut bytes = Vec::new();
        let reading = async {
            while bytes.len() <= most
                && let Some(frame) = body.frame().await
            {
                if let Ok(data) = frame?.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(())
        };
        let whole = match tokio::time::timeout(limit, reading).await {
            Ok(whole) => whole,
            Err(_) => Err(Late::Receiving(limit).into()),
        };
        (bytes, whole)
    }

    /// An answer that is no success: as it is if object_store is to interpret it, or as an error.
    async fn unsuccessful(
        &self,
        question: Question,
        answer: http::Response<Receiving>,
    ) -> Result<HttpResponse, HttpError> {
        let (head, body) = answer.into_parts();
        let (mut bytes, whole) = self.read(body, self.limits.first_byte, MOST_THAT_IS_READ).await;
        bytes.truncate(MOST_THAT_IS_READ);
        match refusal::judge(&question, head.status, &head.headers, &bytes) {
            Verdict::Refused(refusal) => Err(HttpError::new(HttpErrorKind::Unknown, refusal)),
            Verdict::Foreign(foreign) => {
                whole?;
                Err(HttpError::new(HttpErrorKind::Unknown, foreign))
            }
            Verdict::Pass => {
                // Half an answer proves nothing, least of all that an object is absent.
                whole?;
                let text = answer::excerpt(&String::from_utf8_lossy(&bytes));
                Ok(HttpResponse::from_parts(head, HttpResponseBody::from(text)))
            }
        }
    }

    /// An answer that says that it is a success, once it is known to be a store's.
    async fn successful(
        &self,
        question: Question,
        answer: http::Response<Receiving>,
    ) -> Result<HttpResponse, HttpError> {
        let (most, limit) = match question.success {
            Success::Any => return Ok(answer.map(HttpResponseBody::new)),
            Success::Head(_) => (0, self.limits.first_byte),
            Success::Page(_) => (LONGEST_PAGE, Duration::MAX),
            // S3 sends a blank now and then while it works: only a stall ends this.
            Success::Completion => (MOST_THAT_IS_READ, Duration::MAX),
            Success::Batch => (MOST_THAT_IS_READ, self.limits.first_byte),
        };
        let (head, body) = answer.into_parts();
        let (bytes, whole) = self.read(body, limit, most).await;
        whole?;
        if question.success == Success::Completion && answer::is_error(&bytes) {
            let refusal = refusal::read(head.status, &head.headers, &bytes);
            return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
        }
        if let Some(found) = unlike_a_store(question.success, &head, &bytes) {
            let foreign = Foreign::new(&question, head.status, found, &bytes);
            return Err(HttpError::new(HttpErrorKind::Unknown, foreign));
        }
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(bytes)))
    }

    /// One request and its answer.
    async fn exchange(
        &self,
        (parts, url): (http::request::Parts, reqwest::Url),
        body: HttpRequestBody,
        place: &Place,
    ) -> Result<HttpResponse, HttpError> {
        let pieces = pieces(body).await?;
        let question = Question::of(&parts, is_metadata(&url));
        let asked = (parts.method == http::Method::PUT).then(|| parts.headers.clone());
        let sent = if asked.is_some() { pieces.clone() } else { Vec::new() };
        let answer = self.send(parts, url, pieces, place).await?;
        if !answer.status().is_success() {
            return self.unsuccessful(question, answer).await;
        }
        let answer = self.successful(question, answer).await?;
        if let Some(asked) = asked {
            checksum::compare(&asked, &sent, answer.headers())
                .map_err(|wrong| HttpError::new(HttpErrorKind::Unknown, wrong))?;
        }
        Ok(answer)
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url: reqwest::Url = match parts.uri.to_string().parse() {
            Ok(url) => url,
            Err(_) => return Err(own(crate::error::Error::bug("a request's address is not a URL"))),
        };
        let proxy = self.clients.proxy_place().filter(|_| !is_metadata(&url));
        let place = Place::new(&url, proxy.as_ref());
        self.exchange((parts, url), body, &place).await.map_err(|error| place.of(error))
    }
}

/// What an answer has that a store's would not have.
fn unlike_a_store(success: Success, head: &http::response::Parts, body: &[u8]) -> Option<&'static str> {
    match success {
        Success::Any => None,
        Success::Head(statuses) if !statuses.contains(&head.status.as_u16()) => Some("is no store's status"),
        Success::Head(_) => (!body.is_empty()).then_some("has a body"),
        Success::Page(root) => foreign::bad_page(root, body),
        Success::Completion => {
            // The second is moto's.
            let roots = ["CompleteMultipartUploadResult", "CompleteMultipartUploadResponse"];
            let done = answer::root(body).is_some_and(|root| roots.contains(&root.as_str()));
            (!done).then_some("does not say that the upload is complete")
        }
        Success::Batch => (!foreign::is_batch(&head.headers, body)).then_some("is no answer to a batch"),
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
