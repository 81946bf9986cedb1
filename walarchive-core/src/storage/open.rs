//! A store from its url and options.

use std::sync::Arc;

use super::cloud::CloudStorage;
use super::limited::Limited;
use super::steady::Steady;
use super::url::{Address, Place};
use super::{LocalStorage, Storage, StoreOptions};
use crate::error::Result;

/// Opens the store at `url`: `file:///absolute/path` or a plain absolute path, `s3://bucket/prefix`,
/// `gs://bucket/prefix`, `az://container/prefix`, `sftp://user@host/path`. What the url's query says beats `options`.
/// Calls are tried again as `options.patience` says, and limited as the other options say.
///
/// # Errors
///
/// `Usage` for a url or an option that cannot be used, else as the store's own `open`. Cloud stores are not asked
/// anything yet.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Storage>> {
    opened(url, options, false).await
}

/// The same, for a new archive: a directory is made when it is not there yet; a bucket is not.
pub async fn create(url: &str, options: &StoreOptions) -> Result<Arc<dyn Storage>> {
    opened(url, options, true).await
}

async fn opened(url: &str, options: &StoreOptions, new: bool) -> Result<Arc<dyn Storage>> {
    let address = Address::parse(url)?;
    let mut options = options.clone();
    for (name, value) in &address.options {
        options.set(name, value).map_err(|error| error.during("the archive's url"))?;
    }
    let store: Arc<dyn Storage> = match address.place {
        Place::Local(path) if new => Arc::new(LocalStorage::create_root(path)?),
        Place::Local(path) => Arc::new(LocalStorage::open(path)?),
        Place::Cloud { provider, bucket, prefix } => {
            Arc::new(CloudStorage::open(provider, &bucket, &prefix, &options)?)
        }
        Place::Sftp { .. } => return Err(crate::error::Error::usage("sftp:// is not known yet")),
    };
    let limited = Limited::new(store, options.concurrency, options.bandwidth);
    Ok(Arc::new(Steady::new(Arc::new(limited), options.patience)))
}
