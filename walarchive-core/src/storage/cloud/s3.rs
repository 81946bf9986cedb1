//! S3 and what speaks like it.

use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector};

use super::super::http::Connector;
use super::super::{CreateMode, StoreOptions};
use super::profile::{Profile, ProfileCredentials};
use super::{client_options, no_retries, says_yes, unusable};
use crate::error::{Error, Result};

const DEFAULT_REGION: &str = "us-east-1";

/// A client of one bucket, and one for requests that it has no words for.
pub(super) fn client(
    bucket: &str,
    options: &StoreOptions,
    connector: Connector,
) -> Result<(AmazonS3, HttpClient)> {
    let mut options = options.clone();
    options.allow_http |= options.variable("AWS_ALLOW_HTTP").is_some_and(says_yes);
    let http = connector.connect(&client_options(&options)).map_err(|source| unusable("S3", source))?;
    let variable = |names: [&str; 2]| names.iter().find_map(|name| options.variable(name)).map(str::to_owned);
    let region = variable(["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let endpoint = variable(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
    options.region = options.region.or(region);
    options.endpoint = options.endpoint.or(endpoint);
    let mut builder = from_variables(&options);
    if let Some(found) = profile_of(&options)? {
        options.region = options.region.or(found.region);
        options.endpoint = options.endpoint.or(found.endpoint);
        if let Some(provider) = found.provider {
            builder = builder.with_credentials(Arc::new(provider));
        }
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_http_connector(connector)
        .with_client_options(client_options(&options))
        .with_retry(no_retries())
        // One request for one object: not every look-alike removes several at once.
        .with_disable_bulk_delete(true);
    builder = builder.with_region(options.region.as_deref().unwrap_or(DEFAULT_REGION));
    if options.variable("AWS_CHECKSUM_ALGORITHM").is_none() {
        // Signing needs this digest of what is sent anyway; so the store checks what arrives against it.
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    builder = match address(bucket, &options)? {
        Address::Provider { in_path } => builder.with_virtual_hosted_style_request(!in_path),
        Address::Path(endpoint) => builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false),
        Address::Host(endpoint) => builder.with_endpoint(endpoint).with_virtual_hosted_style_request(true),
    };
    builder = builder.with_conditional_put(match options.create {
        CreateMode::Conditional => S3ConditionalPut::ETagMatch,
        CreateMode::CheckFirst => S3ConditionalPut::Disabled,
    });
    if let Some(encryption) = &options.server_encryption {
        builder = encrypted(builder, encryption)?;
    }
    Ok((builder.build().map_err(|source| unusable("S3", source))?, http))
}

/// What a profile of the shared files adds to what was said otherwise.
struct Found {
    region: Option<String>,
    endpoint: Option<String>,
    provider: Option<ProfileCredentials>,
}

/// Where the provider's own tools look: a profile that is asked for, then the environment, then the default profile,
/// then the machine that this runs on.
fn profile_of(options: &StoreOptions) -> Result<Option<Found>> {
    let asked = options.profile.is_some() || options.variable("AWS_PROFILE").is_some();
    let in_environment = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"];
    let in_environment = in_environment.iter().any(|name| options.variable(name).is_some());
    let profile = Profile::of(options);
    let read = match profile.read() {
        // Files of another user, where they are not needed.
        Err(_) if in_environment => None,
        read => read?,
    };
    let Some(values) = read else {
        return if asked && !in_environment { Err(profile.missing()) } else { Ok(None) };
    };
    let value = |key: &str| values.get(key).filter(|value| !value.is_empty()).cloned();
    let (region, endpoint) = (value("region"), value("endpoint_url"));
    let provider = match options.profile.is_some() || !in_environment {
        true => profile.provider(&values)?,
        false => None,
    };
    Ok(Some(Found { region, endpoint, provider }))
}

/// All that the environment says by names that start with `AWS_`.
fn from_variables(options: &StoreOptions) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in
        options.variables.iter().filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
    {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder
}

/// Where the bucket is.
enum Address {
    /// At the provider's own address, the bucket's name in the path or in the host's name.
    Provider { in_path: bool },
    /// At this endpoint, the bucket's name in the path.
    Path(String),
    /// At this endpoint, which has the bucket's name in it.
    Host(String),
}

fn address(bucket: &str, options: &StoreOptions) -> Result<Address> {
    let Some(endpoint) = options.endpoint.as_deref() else {
        // A dot in the bucket's name makes a host's name that the provider's certificate does not cover.
        return Ok(Address::Provider { in_path: options.path_style.unwrap_or(bucket.contains('.')) });
    };
    let endpoint = endpoint.trim_end_matches('/');
    let host = endpoint.strip_prefix("https://").map(|host| ("https", host));
    let host = host.or_else(|| endpoint.strip_prefix("http://").map(|host| ("http", host)));
    let Some((scheme, host)) = host else {
        return Err(Error::usage("the endpoint of the S3 store is not a url").hint("write https://host:port"));
    };
    if scheme == "http" && !options.allow_http {
        return Err(Error::usage("the endpoint of the S3 store is without TLS, and that was not allowed")
            .hint("use https://, or set store.allow_http (AWS_ALLOW_HTTP) where nobody can listen or change what passes"));
    }
    if host.is_empty() || host.contains('@') {
        return Err(Error::usage("the endpoint of the S3 store names no host, or holds credentials"));
    }
    Ok(match options.path_style {
        Some(false) => Address::Host(format!("{scheme}://{bucket}.{host}")),
        _ => Address::Path(endpoint.to_owned()),
    })
}

fn encrypted(builder: AmazonS3Builder, encryption: &str) -> Result<AmazonS3Builder> {
    use object_store::aws::AmazonS3ConfigKey as Key;
    let server_side = "aws_server_side_encryption".parse::<Key>().map_err(|source| unusable("S3", source))?;
    match encryption.strip_prefix("aws:kms") {
        Some("") => Ok(builder.with_config(server_side, "aws:kms")),
        Some(key) if key.starts_with(':') => Ok(builder.with_sse_kms_encryption(key.trim_start_matches(':'))),
        None if encryption == "AES256" => Ok(builder.with_config(server_side, "AES256")),
        _ => Err(Error::usage(format!("server_encryption cannot be {encryption:?}"))
            .hint("AES256, aws:kms, or aws:kms: followed by the key's name")),
    }
}
