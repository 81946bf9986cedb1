//! Cloud stores: S3 and its look-alikes, Google Cloud Storage, Azure Blob Storage.

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod google;
mod listing;
#[cfg(feature = "s3")]
mod profile;
#[cfg(feature = "s3")]
mod s3;
mod uploads;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::list::PaginatedListStore;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutPayload,
    RetryConfig,
};

use self::uploads::Uploads;
use super::http::{Connector, HttpOptions, wrong_checksum};
use super::object::{Objects, Root, failed};
#[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
use super::open::not_built;
use super::steady::is_stored;
use super::url::Provider;
use super::{CreateMode, Created, Entry, Part, Parts, Storage, StoreOptions, Unfinished, Upload};
use crate::error::{Error, Kind, Result};

/// What a cloud store's client can do.
trait Client: ObjectStore + MultipartStore + PaginatedListStore {}
impl<T: ObjectStore + MultipartStore + PaginatedListStore> Client for T {}

/// An archive in a bucket or container, below a prefix.
///
/// Each object is stored by one conditional request, or in parts that show together. The credentials are found as the
/// provider's own tools find them, and read again when they expire.
#[derive(Debug)]
pub struct CloudStorage {
    client: Arc<dyn Client>,
    objects: Objects,
    root: Root,
    create: CreateMode,
    attributes: Attributes,
    parts: Parts,
    /// None on Azure: what was sent there of an upload is no object of its own, and is forgotten after a week.
    uploads: Option<Arc<Uploads>>,
}

impl CloudStorage {
    /// A store in `bucket` below `prefix` (empty, or without slashes at its ends). Asks the store nothing.
    ///
    /// # Errors
    ///
    /// `Usage` for options that do not fit together or files that they name and that cannot be used.
    pub(super) fn open(
        provider: Provider,
        bucket: &str,
        prefix: &str,
        options: &StoreOptions,
    ) -> Result<CloudStorage> {
        let connector = Connector::new(http_options(options))?;
        let (client, as_store, uploads): (Arc<dyn Client>, Arc<dyn ObjectStore>, _) = match provider {
            #[cfg(feature = "s3")]
            Provider::S3 => {
                let (client, http) = s3::client(bucket, options, connector)?;
                let client = Arc::new(client);
                (client.clone(), client.clone(), Some(Uploads::of_s3(http, client)))
            }
            #[cfg(feature = "gcs")]
            Provider::Google => {
                let (client, http, url) = google::client(bucket, options, connector)?;
                let uploads = Uploads::of_google(http, url, client.credentials().clone());
                let client = Arc::new(client);
                (client.clone(), client, Some(uploads))
            }
            #[cfg(feature = "azure")]
            Provider::Azure => {
                let client = Arc::new(azure::client(bucket, options, connector)?);
                (client.clone(), client, None)
            }
            #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
            _ => return Err(not_built(provider.scheme())),
        };
        let mut attributes = Attributes::new();
        if let Some(class) = &options.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        let root = Root(prefix.to_owned());
        Ok(CloudStorage {
            client,
            objects: Objects::below(as_store, root.clone(), attributes.clone()),
            root,
            create: options.create,
            attributes,
            parts: options.parts(),
            uploads: uploads.map(Arc::new),
        })
    }

    /// Creates where the store knows no condition.
    async fn create_unconditionally(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        match self.objects.size(key).await {
            Ok(_) => return Ok(Created::Exists),
            Err(error) if error.kind() == Kind::Absent => {}
            Err(error) => return Err(error),
        }
        self.objects.overwrite(key, payload.clone()).await?;
        // Somebody else may have looked at the same moment, and the last to write has won.
        let ours = is_stored(&self.objects, key, &payload).await?;
        Ok(if ours { Created::New } else { Created::Exists })
    }

    /// What was stored is not what was sent: nothing may find it there and believe it. It was never acknowledged.
    async fn take_back(&self, key: &str, error: Error) -> Error {
        match self.objects.delete(key).await {
            Ok(()) => error,
            Err(failure) => Error::damaged(format!(
                "storing {key}: the store has other bytes than were sent, and they cannot be removed"
            ))
            .on(key)
            .hint("remove the object by hand before it is stored again")
            .because(failure),
        }
    }
}

fn http_options(options: &StoreOptions) -> HttpOptions {
    HttpOptions {
        ca_file: options.ca_file.clone().or_else(|| options.variable("AWS_CA_BUNDLE").map(Into::into)),
        proxy: options.proxy.clone(),
        allow_http: options.allow_http,
        connect_timeout: options.connect_timeout,
        first_byte_timeout: options.first_byte_timeout,
        stall_timeout: options.stall_timeout,
    }
}

/// The part of a client's options that our own connector leaves to the client. Timeouts are the connector's.
fn client_options(options: &StoreOptions) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_timeout_disabled()
        .with_connect_timeout(options.connect_timeout)
}

/// What is tried again is decided by our own patience.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// An error of a client that could not be made.
fn unusable(provider: &str, source: object_store::Error) -> Error {
    Error::usage(format!("the settings of the {provider} store cannot be used")).because(source)
}

/// Whether a variable says yes, as the providers' tools read it.
fn says_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on" | "y")
}

#[async_trait]
impl Storage for CloudStorage {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        let created = match self.create {
            CreateMode::Conditional => self.objects.create(key, payload).await,
            CreateMode::CheckFirst => self.create_unconditionally(key, payload).await,
        };
        match created {
            Err(error) if wrong_checksum(&error) => Err(self.take_back(key, error).await),
            done => done,
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let path = self.root.object(key)?;
        let options = PutMultipartOptions { attributes: self.attributes.clone(), ..Default::default() };
        let id = self.client.create_multipart_opts(&path, options).await;
        let id = id.map_err(|source| failed("starting the upload of", key, source))?;
        let client = self.client.clone();
        Ok(Box::new(CloudUpload { client, key: key.to_owned(), path, id, sent: Mutex::default() }))
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.upload(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        self.objects.get(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.objects.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        listing::objects(self.client.clone(), self.root.clone(), prefix)
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        listing::directories(self.client.clone(), &self.root, prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.objects.delete(key).await
    }

    fn parts(&self) -> Parts {
        self.parts.clone()
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        match &self.uploads {
            Some(uploads) => uploads.clone().list(self.root.clone()),
            None => stream::empty().boxed(),
        }
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        let path = self.root.object(&unfinished.key)?;
        match self.client.abort_multipart(&path, &unfinished.id).await {
            Ok(()) => Ok(()),
            Err(source) => match failed("removing the unfinished upload of", &unfinished.key, source) {
                error if error.kind() == Kind::Absent => Ok(()),
                error => Err(error),
            },
        }
    }
}

/// An upload in parts that the store keeps apart until it is told to put them together.
struct CloudUpload {
    client: Arc<dyn Client>,
    key: String,
    path: Path,
    id: String,
    /// What the store calls each part, and its length.
    sent: Mutex<BTreeMap<usize, (PartId, u64)>>,
}

impl CloudUpload {
    fn failed(&self, attempt: &str, source: object_store::Error) -> Error {
        failed(attempt, &self.key, source)
    }

    /// The upload is gone, which says nothing about any object.
    fn lost(&self, error: Error) -> Error {
        let message = format!("uploading {}: the store has lost what was sent", self.key);
        Error::new(Kind::Denied, message)
            .on(&self.key)
            .hint("does something remove unfinished uploads after too short a time?")
            .because(error)
    }

    /// The parts in order, and the length of all together.
    fn whole(&self) -> Result<(Vec<PartId>, u64)> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.keys().enumerate().any(|(position, number)| position != *number) {
            let message = format!("finishing the upload of {}: a part is missing", self.key);
            return Err(Error::bug(message).on(&self.key));
        }
        let len = sent.values().map(|(_, len)| len).sum();
        Ok((sent.values().map(|(id, _)| id.clone()).collect(), len))
    }
}

#[async_trait]
impl Upload for CloudUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        let payload = PutPayload::from_iter(pieces);
        let len = payload.content_length() as u64;
        let sent = self.client.put_part(&self.path, &self.id, number, payload).await;
        let id = sent.map_err(|source| match self.failed("uploading a part of", source) {
            error if error.kind() == Kind::Absent => self.lost(error),
            error => error,
        })?;
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (id, len));
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let (parts, len) = self.whole()?;
        if parts.is_empty() {
            // No store puts an object together from nothing.
            self.abort().await?;
            let put = self.client.put(&self.path, PutPayload::new()).await;
            return put.map(drop).map_err(|source| self.failed("storing", source));
        }
        let done = self.client.complete_multipart(&self.path, &self.id, parts).await;
        let error = match done {
            Ok(_) => return Ok(()),
            Err(source) => self.failed("finishing the upload of", source),
        };
        if error.kind().is_transient() {
            return Err(error);
        }
        // An earlier call may have finished it, its answer being lost: the store knows no such upload then. The key is of
        // this upload alone.
        match self.client.head(&self.path).await {
            Ok(found) if found.size == len => Ok(()),
            _ if error.kind() == Kind::Absent => Err(self.lost(error)),
            _ => Err(error),
        }
    }

    async fn abort(&self) -> Result<()> {
        match self.client.abort_multipart(&self.path, &self.id).await {
            Ok(()) => Ok(()),
            Err(source) => match self.failed("giving up the upload of", source) {
                error if error.kind() == Kind::Absent => Ok(()),
                error => Err(error),
            },
        }
    }
}
