//! Google Cloud Storage.

use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};

use super::super::http::Connector;
use super::super::{CreateMode, StoreOptions};
use super::{client_options, no_retries, says_yes, unusable};
use crate::error::{Error, Result};

const ADDRESS: &str = "https://storage.googleapis.com";

/// A client of one bucket, one for requests that it has no words for, and the bucket's url for them. Credentials: a
/// service account's file or key, the application default credentials, the metadata server.
pub(super) fn client(
    bucket: &str,
    options: &StoreOptions,
    connector: Connector,
) -> Result<(GoogleCloudStorage, HttpClient, String)> {
    if options.create == CreateMode::CheckFirst || options.server_encryption.is_some() {
        return Err(Error::usage(
            "create=check-first and server_encryption are not for Google Cloud Storage",
        )
        .hint("it knows conditional puts; set the bucket's encryption key there"));
    }
    let mut options = options.clone();
    options.allow_http |= options.variable("GOOGLE_ALLOW_HTTP").is_some_and(says_yes);
    let http = connector.connect(&client_options(&options)).map_err(|source| unusable("Google", source))?;
    let address = options.endpoint.as_deref().or_else(|| options.variable("GOOGLE_BASE_URL"));
    let url = format!("{}/{bucket}/", address.unwrap_or(ADDRESS).trim_end_matches('/'));
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in options.variables.iter().filter(|(_, value)| !value.is_empty()) {
        let name = if name == "SERVICE_ACCOUNT" { "google_service_account" } else { name };
        if !name.to_ascii_lowercase().starts_with("google_") {
            continue;
        }
        if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let client = builder
        .with_bucket_name(bucket)
        .with_http_connector(connector)
        .with_client_options(client_options(&options))
        .with_retry(no_retries())
        .build()
        .map_err(|source| unusable("Google", source))?;
    Ok((client, http, url))
}
