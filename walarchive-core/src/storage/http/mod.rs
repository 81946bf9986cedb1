//! HTTP under the cloud stores.
use crate::error::{Kind, Result};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use std::path::PathBuf;
use std::time::Duration;
#[derive(Debug)]
#[allow(dead_code)]
pub(super) struct HttpOptions {
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<String>,
    pub allow_http: bool,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub stall_timeout: Duration,
}
#[derive(Debug)]
pub(super) struct Connector(HttpOptions);
impl Connector {
    pub(super) fn new(o: HttpOptions) -> Result<Connector> {
        Ok(Connector(o))
    }
}
impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let tls = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let client = reqwest::Client::builder()
            .connect_timeout(self.0.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls)
            .build();
        Ok(HttpClient::new(Service(client.unwrap())))
    }
}
#[derive(Debug)]
struct Service(reqwest::Client);
#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, req: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let (parts, body) = req.into_parts();
        let mut out = reqwest::Request::new(parts.method, parts.uri.to_string().parse().unwrap());
        *out.headers_mut() = parts.headers;
        *out.body_mut() = Some(reqwest::Body::wrap(body));
        let answer = self.0.execute(out).await.map_err(|e| HttpError::new(HttpErrorKind::Connect, e))?;
        let answer: http::Response<reqwest::Body> = answer.into();
        let (parts, body) = answer.into_parts();
        let body = http_body_util::BodyExt::map_err(body, |e| HttpError::new(HttpErrorKind::Interrupted, e));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}
#[derive(Debug)]
pub(super) struct Refusal;
impl Refusal {
    pub(super) fn kind(&self) -> Kind {
        Kind::Bug
    }
}
pub(super) fn refused<'a>(_: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refusal> {
    None
}
pub(super) fn wrong_checksum(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}
