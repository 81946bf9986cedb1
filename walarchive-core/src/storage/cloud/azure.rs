//! Azure Blob Storage.

use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};

use super::super::http::Connector;
use super::super::{CreateMode, StoreOptions};
use super::{client_options, no_retries, says_yes, unusable};
use crate::error::{Error, Result};

/// A client of one container. Credentials: an account's key, a SAS token, a connection string, a client's secret,
/// workload identity, managed identity.
pub(super) fn client(
    container: &str,
    options: &StoreOptions,
    connector: Connector,
) -> Result<MicrosoftAzure> {
    if options.create == CreateMode::CheckFirst || options.server_encryption.is_some() {
        return Err(Error::usage("create=check-first and server_encryption are not for Azure")
            .hint("it knows conditional puts; set the account's encryption key there"));
    }
    let mut options = options.clone();
    options.allow_http |= options.variable("AZURE_ALLOW_HTTP").is_some_and(says_yes);
    let mut builder = MicrosoftAzureBuilder::new();
    if let Some(connection) = options.variable("AZURE_STORAGE_CONNECTION_STRING") {
        builder = connected(builder, connection)?;
    }
    for (name, value) in options.variables.iter().filter(|(_, value)| !value.is_empty()) {
        if let Some(key) = config_key(name) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    builder
        .with_container_name(container)
        .with_http_connector(connector)
        .with_client_options(client_options(&options))
        .with_retry(no_retries())
        .build()
        .map_err(|source| unusable("Azure", source))
}

/// The option that a variable sets. Some names are those of the provider's command line.
fn config_key(name: &str) -> Option<AzureConfigKey> {
    match name {
        "AZURE_STORAGE_ACCOUNT" => Some(AzureConfigKey::AccountName),
        "AZURE_STORAGE_KEY" => Some(AzureConfigKey::AccessKey),
        "AZURE_STORAGE_SERVICE_ENDPOINT" => Some(AzureConfigKey::Endpoint),
        "IDENTITY_ENDPOINT" => Some(AzureConfigKey::MsiEndpoint),
        _ if name.starts_with("AZURE_") => name.to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

/// What a connection string says: `AccountName=…;AccountKey=…;BlobEndpoint=…`. Its text is secret.
fn connected(mut builder: MicrosoftAzureBuilder, connection: &str) -> Result<MicrosoftAzureBuilder> {
    for pair in connection.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Error::usage("AZURE_STORAGE_CONNECTION_STRING cannot be read")
                .hint("it is NAME=VALUE;NAME=VALUE…")
        })?;
        let key = match name {
            "AccountName" => AzureConfigKey::AccountName,
            "AccountKey" => AzureConfigKey::AccessKey,
            "SharedAccessSignature" => AzureConfigKey::SasKey,
            "BlobEndpoint" => AzureConfigKey::Endpoint,
            _ => continue,
        };
        builder = builder.with_config(key, value.trim_end_matches('/'));
    }
    Ok(builder)
}
