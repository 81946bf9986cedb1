//! What a bucket really holds.

use std::sync::Arc;

use futures::TryStreamExt;
use futures::executor::block_on;
use http::{Request, StatusCode};
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpRequest, HttpService};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

use super::wire::{self, Wire};
use super::{Bucket, Kind, azurite, seaweed};

/// A bucket's archive, seen past the product. Its calls block, and panic when the store refuses.
#[derive(Debug)]
pub struct Raw {
    bucket: Bucket,
    store: Arc<dyn ObjectStore>,
}

/// An upload that was begun, and neither finished nor given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// What it would become, below the archive's place.
    pub key: String,
    /// The store's name for it.
    pub id: String,
}

impl Raw {
    pub(super) fn new(bucket: Bucket) -> Raw {
        let store = client(bucket.kind, bucket.endpoint(), bucket.name());
        Raw { store: Arc::new(PrefixStore::new(store, bucket.prefix())), bucket }
    }

    /// The archive's objects through object_store's own client: without retries, and its calls block.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Keys and sizes of all objects, in order.
    pub fn list(&self) -> Vec<(String, u64)> {
        let found: Vec<_> = block_on(self.store.list(None).try_collect()).expect("list the bucket");
        let found = found.into_iter().map(|meta| (meta.location.to_string(), meta.size));
        let mut found: Vec<_> = found.collect();
        found.sort();
        found
    }

    /// An object's bytes.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let found = block_on(async { self.store.get(&Path::from(key)).await?.bytes().await });
        match found {
            Ok(bytes) => Some(bytes.to_vec()),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => panic!("read {key}: {error}"),
        }
    }

    /// Stores an object, whether it was there or not.
    pub fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let content = PutPayload::from(content.into());
        block_on(self.store.put(&Path::from(key), content))
            .unwrap_or_else(|error| panic!("put {key}: {error}"));
    }

    /// Removes an object, which has to be there.
    pub fn delete(&self, key: &str) {
        assert!(self.get(key).is_some(), "{key} is not there");
        block_on(self.store.delete(&Path::from(key))).unwrap_or_else(|error| panic!("delete {key}: {error}"));
    }

    /// The uploads that nobody finished or gave up; on Azure, the objects of which there are only blocks.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let (element, id, query) = match self.bucket.kind {
            Kind::Seaweed | Kind::Moto | Kind::Gcs => ("Upload", "UploadId", "uploads="),
            Kind::Azurite => ("Blob", "Etag", "restype=container&comp=list&include=uncommittedblobs"),
        };
        let answer = request(&self.bucket, "GET", query);
        let below = format!("{}/", self.bucket.prefix());
        let uploads = elements(&answer, element).into_iter().filter_map(|upload| {
            let name = elements(upload, "Key").into_iter().chain(elements(upload, "Name")).next()?;
            let id = elements(upload, id).first().map_or_else(String::new, ToString::to_string);
            Some(Unfinished { key: name.strip_prefix(&below)?.to_owned(), id })
        });
        let mut uploads: Vec<_> = uploads.collect();
        if self.bucket.kind == Kind::Azurite {
            let whole = self.list();
            uploads.retain(|upload| !whole.iter().any(|(key, _)| *key == upload.key));
        }
        uploads
    }
}

/// The contents of the elements called `name`.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let found = xml.split(&open).skip(1);
    found.filter_map(|rest| rest.split_once(&close)).map(|(content, _)| content).collect()
}

fn client(kind: Kind, endpoint: &str, name: &str) -> Arc<dyn ObjectStore> {
    let options = ClientOptions::new().with_allow_http(true);
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    match kind {
        Kind::Seaweed | Kind::Moto => {
            let builder = AmazonS3Builder::new().with_endpoint(format!("http://{}", endpoint));
            let builder = builder.with_access_key_id(seaweed::KEY).with_secret_access_key(seaweed::SECRET);
            let builder = builder.with_region(seaweed::REGION).with_bucket_name(name);
            let builder = builder.with_client_options(options).with_retry(retry).with_http_connector(Wire);
            Arc::new(builder.build().expect("a client of S3"))
        }
        Kind::Azurite => {
            let url = format!("http://{}/{}", endpoint, azurite::ACCOUNT);
            let builder = MicrosoftAzureBuilder::new().with_endpoint(url).with_account(azurite::ACCOUNT);
            let builder = builder.with_access_key(azurite::KEY).with_container_name(name);
            let builder = builder.with_client_options(options).with_retry(retry).with_http_connector(Wire);
            Arc::new(builder.build().expect("a client of Azure"))
        }
        Kind::Gcs => {
            let account =
                r#"{"disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}"#;
            let builder = GoogleCloudStorageBuilder::new().with_service_account_key(account);
            let builder = builder.with_base_url(&format!("http://{}", endpoint));
            let builder = builder.with_bucket_name(name).with_client_options(options);
            Arc::new(builder.with_retry(retry).with_http_connector(Wire).build().expect("a client of Google"))
        }
    }
}

pub(super) fn make_bucket(bucket: &Bucket) {
    request(bucket, "PUT", if bucket.kind == Kind::Azurite { "restype=container" } else { "" });
}

/// Whether the server at `addr` can store, and read what it stored before it was stopped.
pub(super) fn stores(addr: &str, kind: Kind) -> bool {
    let made = signed(kind, addr, "ready", "PUT", "");
    let there = made.is_ok_and(|(status, _)| status.is_success() || status == StatusCode::CONFLICT);
    let path = Path::from("probe");
    there
        && block_on(async {
            let store = client(kind, addr, "ready");
            match store.get(&path).await {
                Err(object_store::Error::NotFound { .. }) => {
                    store.put(&path, PutPayload::from(vec![1; 10_000])).await.is_ok()
                }
                found => found.is_ok(),
            }
        })
}

/// A signed request about the bucket itself; the answer's text.
fn request(bucket: &Bucket, method: &str, query: &str) -> String {
    let answer = signed(bucket.kind, bucket.endpoint(), bucket.name(), method, query);
    let (status, text) =
        answer.unwrap_or_else(|error| panic!("{method} {} {query}: {error:?}", bucket.name()));
    assert!(status.is_success(), "{method} {} {query}: {status} {text}", bucket.name());
    text
}

fn signed(
    kind: Kind,
    endpoint: &str,
    name: &str,
    method: &str,
    query: &str,
) -> Result<(StatusCode, String), HttpError> {
    let account = if kind == Kind::Azurite { format!("/{}", azurite::ACCOUNT) } else { String::new() };
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let url = format!("http://{}{account}/{}{query}", endpoint, name);
    let built =
        Request::builder().method(method).uri(&url).header("content-length", "0").body(Vec::new().into());
    let mut request: HttpRequest = built.expect("a request");
    match kind {
        Kind::Seaweed | Kind::Moto => {
            let credential = AwsCredential {
                key_id: seaweed::KEY.to_owned(),
                secret_key: seaweed::SECRET.to_owned(),
                token: None,
            };
            AwsAuthorizer::new(&credential, "s3", seaweed::REGION)
                .try_authorize(&mut request, None)
                .expect("sign");
        }
        Kind::Azurite => {
            let key = AzureAccessKey::try_new(azurite::KEY).expect("the emulator's key");
            AzureAuthorizer::new(&AzureCredential::AccessKey(key), azurite::ACCOUNT)
                .try_authorize(&mut request)
                .expect("sign");
        }
        Kind::Gcs => {}
    }
    block_on(async {
        let answer = Wire.call(request).await?;
        let status = answer.status();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    })
}

/// The status of a plain request; none when nobody answers.
pub(super) fn status(addr: &str, target: &str) -> Option<u16> {
    wire::send(addr, "GET", target, &[], &[]).ok().map(|answer| answer.status)
}
