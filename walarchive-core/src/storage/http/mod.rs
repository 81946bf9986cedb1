//! HTTP to cloud stores: what object_store sends goes through here, so that every request has its timeouts, every
//! refusal is typed, every upload is compared with what the store says it has, and no answer is believed that is not a
//! store's.
//!
//! Nothing is tried again here and no redirect is followed.

mod answer;
mod body;
mod checksum;
mod client;
mod foreign;
mod place;
mod question;
mod refusal;
mod service;
#[cfg(test)]
mod tests;
mod trouble;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};

pub(super) use checksum::wrong_checksum;
pub(super) use refusal::refused;
pub(super) use trouble::trouble;

use crate::error::Result;
use client::Clients;
use service::Service;

/// How a store is reached.
#[derive(Clone)]
pub(super) struct HttpOptions {
    /// A file of PEM certificates that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// The proxy for all requests, as a URL, perhaps with a password; without one, the environment counts
    /// (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`). `NO_PROXY` counts in either case. Metadata services of a cloud
    /// are always asked directly.
    pub proxy: Option<String>,
    /// Whether requests may go over plain HTTP.
    pub allow_http: bool,
    /// How long name lookup, TCP and TLS may take together.
    pub connect_timeout: Duration,
    /// How long a store may take from the last byte of a request to the head of its answer. A byte counts as sent when
    /// this machine's network has taken it, so a slow network's buffers empty within this time. A request without a
    /// body has this time and that for connecting.
    pub first_byte_timeout: Duration,
    /// How long no byte may move while a request's or an answer's body is on its way. There is no limit for a whole
    /// body.
    pub stall_timeout: Duration,
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold a password.
        let proxy = self.proxy.as_ref().map(|_| "…");
        f.debug_struct("HttpOptions")
            .field("ca_file", &self.ca_file)
            .field("proxy", &proxy)
            .field("allow_http", &self.allow_http)
            .field("connect_timeout", &self.connect_timeout)
            .field("first_byte_timeout", &self.first_byte_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .finish()
    }
}

/// Makes object_store's HTTP clients; all of them share connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    clients: Arc<Clients>,
}

impl Connector {
    /// A connector. The file of certificates is read and the proxy's URL is checked now; the system's certificates
    /// are read at the first request over https.
    ///
    /// # Errors
    ///
    /// `Usage` for a file or URL that cannot be used.
    pub(super) fn new(options: HttpOptions) -> Result<Connector> {
        Ok(Connector { clients: Arc::new(Clients::new(options)?) })
    }

    /// A client for requests of our own.
    #[allow(dead_code, reason = "for signed requests that object_store does not know")]
    pub(super) fn client(&self) -> HttpClient {
        let options = self.clients.options();
        HttpClient::new(Service::new(self.clients.clone(), options.allow_http, options.connect_timeout))
    }
}

impl HttpConnector for Connector {
    /// Of `options`, counts whether plain HTTP is allowed (metadata services have nothing else), and a timeout for
    /// connecting that is shorter than ours and not object_store's default.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let own = self.clients.options();
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        let allow_http = own.allow_http || allowed.as_deref() == Some("true");
        let asked = options.get_config_value(&ClientConfigKey::ConnectTimeout);
        let default = ClientOptions::new().get_config_value(&ClientConfigKey::ConnectTimeout);
        let asked = asked.filter(|asked| Some(asked) != default.as_ref());
        let asked = asked.and_then(|asked| humantime::parse_duration(&asked).ok());
        let connect = asked.map_or(own.connect_timeout, |asked| asked.min(own.connect_timeout));
        Ok(HttpClient::new(Service::new(self.clients.clone(), allow_http, connect)))
    }
}
