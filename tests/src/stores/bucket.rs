//! A place for one archive on a server.

use std::sync::Arc;

use object_store::ObjectStore;

use super::{Kind, Raw, Server, azurite, raw, seaweed, unique};
use crate::Scratch;

/// A bucket (or container) and a prefix in it, empty at first.
#[derive(Debug, Clone)]
pub struct Bucket {
    scratch: Scratch,
    pub(super) kind: Kind,
    server: Server,
    endpoint: String,
    pub(super) name: String,
    prefix: String,
}

impl Bucket {
    pub(super) fn make(scratch: &Scratch, kind: Kind, server: Server) -> Bucket {
        let name = format!("bucket-{}-{}", std::process::id(), unique());
        let endpoint = server.addr();
        let bucket =
            Bucket { scratch: scratch.clone(), kind, server, endpoint, name, prefix: "archives/one".into() };
        raw::make_bucket(&bucket);
        bucket
    }

    /// Where an archive may be: `s3://bucket/prefix`, `az://…`, `gs://…`.
    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Seaweed | Kind::Moto => "s3",
            Kind::Azurite => "az",
            Kind::Gcs => "gs",
        };
        format!("{scheme}://{}/{}", self.name, self.prefix)
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key, within the bucket, below which the archive is.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The same bucket, and another archive in it.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Bucket {
        Bucket { prefix: prefix.to_owned(), ..self.clone() }
    }

    /// A bucket that does not exist, on the same server.
    #[must_use]
    pub fn missing(&self) -> Bucket {
        Bucket { name: format!("missing-{}", unique()), ..self.clone() }
    }

    /// The same bucket behind another address, such as a proxy's.
    #[must_use]
    pub fn with_endpoint(&self, host_and_port: &str) -> Bucket {
        Bucket { endpoint: host_and_port.to_owned(), ..self.clone() }
    }

    /// The `host:port` that clients are sent to: the server's, or what [`with_endpoint`](Bucket::with_endpoint) said.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The server itself, whatever is in front of it.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The variables that programs need to reach the bucket, credentials among them.
    pub fn env(&self) -> Vec<(String, String)> {
        let endpoint = &self.endpoint;
        let set = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        match self.kind {
            Kind::Seaweed | Kind::Moto => set(&[
                ("AWS_ACCESS_KEY_ID", seaweed::KEY),
                ("AWS_SECRET_ACCESS_KEY", seaweed::SECRET),
                ("AWS_REGION", seaweed::REGION),
                ("AWS_ENDPOINT_URL", &format!("http://{endpoint}")),
                ("AWS_ALLOW_HTTP", "true"),
            ]),
            Kind::Azurite => set(&[
                ("AZURE_STORAGE_ACCOUNT_NAME", azurite::ACCOUNT),
                ("AZURE_STORAGE_ACCOUNT_KEY", azurite::KEY),
                ("AZURE_STORAGE_ENDPOINT", &format!("http://{endpoint}/{}", azurite::ACCOUNT)),
                ("AZURE_ALLOW_HTTP", "true"),
            ]),
            Kind::Gcs => set(&[
                ("GOOGLE_SERVICE_ACCOUNT", &self.service_account()),
                ("GOOGLE_BASE_URL", &format!("http://{endpoint}")),
                ("GOOGLE_ALLOW_HTTP", "true"),
            ]),
        }
    }

    /// A service account that asks nobody for a token.
    fn service_account(&self) -> String {
        let account = serde_json::json!({
            "type": "service_account",
            "gcs_base_url": format!("http://{}", self.endpoint),
            "disable_oauth": true,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        });
        let file = format!("service-account-{}.json", self.endpoint.replace([':', '[', ']'], "-"));
        self.scratch.write(file, account.to_string()).display().to_string()
    }

    /// object_store's own client to the archive's place, as [`env`](Bucket::env) would have it: through a proxy if
    /// one was set. It tries nothing again, and its calls block.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Raw::new(self.clone()).object_store()
    }

    /// The bucket as clients reach it: through a proxy if one was set.
    pub fn reached(&self) -> Raw {
        Raw::new(self.clone())
    }

    /// What the store really holds, past the product and whatever stands in front of the server.
    pub fn raw(&self) -> Raw {
        Raw::new(self.with_endpoint(&self.server.addr()))
    }
}
