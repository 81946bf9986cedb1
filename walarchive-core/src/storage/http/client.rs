//! The clients below: TLS, proxies, pools of connections.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::HttpOptions;
use super::place::Place;
use crate::error::{Error, Result};

/// reqwest's clients by what they must be able to do, made when first needed.
pub(super) struct Clients {
    options: HttpOptions,
    trusted: Vec<CertificateDer<'static>>,
    made: Mutex<HashMap<Shape, reqwest::Client>>,
}

/// What a client must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// TLS with the certificates that are trusted.
    pub secure: bool,
    /// Without a proxy.
    pub direct: bool,
    /// How long connecting may take.
    pub connect: Duration,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clients").field(&self.options).finish()
    }
}

impl Clients {
    pub(super) fn new(options: HttpOptions) -> Result<Clients> {
        let trusted = options.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default();
        if let Some(url) = &options.proxy {
            proxy(url)?;
        }
        Ok(Clients { options, trusted, made: Mutex::default() })
    }

    pub(super) fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// The proxy that was named, unless there are exceptions.
    pub(super) fn proxy_place(&self) -> Option<Place> {
        let excepted = ["NO_PROXY", "no_proxy"].iter().any(|name| std::env::var_os(name).is_some());
        let url = self.options.proxy.as_deref().filter(|_| !excepted)?;
        Some(Place::new(&url.parse().ok()?, None))
    }

    /// The client of that shape.
    pub(super) fn get(&self, shape: Shape) -> Result<reqwest::Client> {
        let shape = Shape { secure: shape.secure || (!shape.direct && self.secure_proxy()), ..shape };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&shape) {
            return Ok(client.clone());
        }
        let client = self.make(shape)?;
        made.insert(shape, client.clone());
        Ok(client)
    }

    fn make(&self, shape: Shape) -> Result<reqwest::Client> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("walarchive/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(shape.connect)
            .tcp_keepalive(Duration::from_secs(30))
            .tls_backend_preconfigured(self.tls(shape.secure)?);
        let builder = match &self.options.proxy {
            _ if shape.direct => builder.no_proxy(),
            Some(url) => builder.proxy(proxy(url)?),
            None => builder,
        };
        builder.build().map_err(|source| {
            Error::bug("an HTTP client for the store could not be made").because(source.without_url())
        })
    }

    /// TLS by ring, whatever else is linked into the program. Without `secure` nobody is trusted, and the system's
    /// certificates are not read.
    fn tls(&self, secure: bool) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        if secure {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            roots.add_parsable_certificates(self.trusted.iter().cloned());
            if roots.is_empty() {
                let error = Error::usage("this machine has no certificates that it trusts, as https needs");
                return Err(error.hint("install the package ca-certificates, or set store.ca_file"));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|source| Error::bug("TLS could not be set up").because(source))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }

    /// Whether the way to a proxy is TLS, even where that to the store is not.
    fn secure_proxy(&self) -> bool {
        let secure = |url: &str| url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        match &self.options.proxy {
            Some(url) => secure(url),
            None => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
                .iter()
                .any(|name| std::env::var(name).is_ok_and(|url| secure(&url))),
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let refused =
        |what: &str| Error::usage(format!("store.ca_file: {} {what}", file.display())).on(file.display());
    let text = std::fs::read(file).map_err(|source| refused("cannot be read").because(source))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|source| refused("is not made of PEM certificates").because(source))?;
    let mut probe = RootCertStore::empty();
    if found.is_empty() {
        return Err(refused("holds no certificate (-----BEGIN CERTIFICATE-----)"));
    }
    for certificate in &found {
        let added = probe.add(certificate.clone());
        added.map_err(|source| refused("holds a certificate that cannot be used").because(source))?;
    }
    Ok(found)
}

/// The message never holds the URL, which may hold a password.
fn proxy(url: &str) -> Result<reqwest::Proxy> {
    let proxy = reqwest::Proxy::all(url).map_err(|_| {
        Error::usage("store.proxy is not a URL of a proxy").hint("write http://[user:password@]host:port")
    })?;
    Ok(proxy.no_proxy(reqwest::NoProxy::from_env()))
}
