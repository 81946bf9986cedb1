//! A store from its url and options.

use std::sync::Arc;

use futures::future::BoxFuture;

#[cfg(feature = "cloud")]
use super::cloud::CloudStorage;
use super::lazy::Lazy;
use super::limited::Limited;
use super::steady::Steady;
use super::url::{Address, Place};
use super::{CreateMode, LocalStorage, Mirrors, Policy, Storage, StoreOptions, Witness};
#[cfg(feature = "sftp")]
use super::{SftpOptions, SftpStorage};
use crate::error::{Error, Result};

/// Signing on takes longer than a connection.
#[cfg(feature = "sftp")]
const SSH_CONNECT_AT_LEAST: std::time::Duration = std::time::Duration::from_secs(15);

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

/// Several stores of one archive: their urls, the primary first, and how they are used together.
pub struct Mirrored<'a> {
    /// Where the stores are.
    pub urls: &'a [String],
    /// When an object counts as stored.
    pub policy: Policy,
    /// Hears of mirrors that are left out, or behind.
    pub witness: Arc<dyn Witness>,
}

/// Opens several stores as one. Each is opened when it is first used, so that one that cannot be reached keeps nobody
/// from the others; for a new archive (`new`) directories are made. Mirrors are named by their urls without queries.
///
/// # Errors
///
/// `Usage` for a url or an option that cannot be used, or a place that is named twice.
pub fn open_mirrors(mirrored: Mirrored<'_>, options: &StoreOptions, new: bool) -> Result<Mirrors> {
    let mut stores: Vec<(String, Arc<dyn Storage>)> = Vec::new();
    for url in mirrored.urls {
        let name = shown(url).to_owned();
        if stores.iter().any(|(known, _)| *known == name) {
            return Err(Error::usage(format!("the archive {name} is named twice")));
        }
        let (address, options) = address(url, options)?;
        let parts = options.parts();
        let opener = move || -> BoxFuture<'static, Result<Arc<dyn Storage>>> {
            let (place, options) = (address.place.clone(), options.clone());
            Box::pin(async move { limited(place, &options, new).await })
        };
        stores.push((name, Arc::new(Lazy::new(Arc::new(opener), parts))));
    }
    Ok(Mirrors::new(stores, mirrored.policy, options.patience.clone(), mirrored.witness))
}

/// How the store at `url` creates objects.
pub fn create_mode(url: &str, options: &StoreOptions) -> Result<CreateMode> {
    address(url, options).map(|(_, options)| options.create)
}

/// A url as it may be shown: its query may hold a proxy's password.
pub fn shown(url: &str) -> &str {
    match url.starts_with('/') {
        true => url,
        false => url.split('?').next().unwrap_or(url),
    }
}

async fn opened(url: &str, options: &StoreOptions, new: bool) -> Result<Arc<dyn Storage>> {
    let (address, options) = address(url, options)?;
    let store = limited(address.place, &options, new).await?;
    Ok(Arc::new(Steady::new(store, options.patience)))
}

/// The url, and the options with what its query says.
fn address(url: &str, options: &StoreOptions) -> Result<(Address, StoreOptions)> {
    let address = Address::parse(url)?;
    let mut options = options.clone();
    for (name, value) in &address.options {
        // A url is shown to everybody: in lists of processes, in the server's settings.
        if name == "proxy" && value.contains('@') {
            return Err(Error::usage("a proxy's password does not belong into an archive's url")
                .hint("set store.proxy in the settings file, or WALARCHIVE_STORE_PROXY"));
        }
        options.set(name, value).map_err(|error| error.during("the archive's url"))?;
    }
    Ok((address, options))
}

/// The store itself, without patience.
async fn limited(place: Place, options: &StoreOptions, new: bool) -> Result<Arc<dyn Storage>> {
    let store: Arc<dyn Storage> = match place {
        Place::Local(path) if new => Arc::new(LocalStorage::create_root(path)?),
        Place::Local(path) => Arc::new(LocalStorage::open(path)?),
        #[cfg(feature = "cloud")]
        Place::Cloud { provider, bucket, prefix } => {
            Arc::new(CloudStorage::open(provider, &bucket, &prefix, options)?)
        }
        #[cfg(not(feature = "cloud"))]
        Place::Cloud { provider, .. } => return Err(not_built(provider.scheme())),
        #[cfg(not(feature = "sftp"))]
        Place::Sftp { .. } => return Err(not_built("sftp")),
        #[cfg(feature = "sftp")]
        Place::Sftp { user, host, port, path } => {
            let place = SftpOptions {
                user,
                port,
                identity: options.ssh_identity.clone(),
                known_hosts: options.ssh_known_hosts.clone(),
                connect_timeout: options.connect_timeout.max(SSH_CONNECT_AT_LEAST),
                stall_timeout: options.stall_timeout,
                parts: options.parts(),
                ..SftpOptions::new(host, path)
            };
            Arc::new(if new { SftpStorage::create_root(place)? } else { SftpStorage::open(place)? })
        }
    };
    Ok(Arc::new(Limited::new(store, options.concurrency, options.bandwidth)))
}

/// A store that this build leaves out.
#[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure", feature = "sftp")))]
pub(super) fn not_built(scheme: &str) -> Error {
    Error::usage(format!("this build of walarchive has no stores of {scheme}://"))
        .hint("the library's feature of that name adds them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn passwords_are_not_for_urls() {
        let options = |query: &str| address(&format!("s3://bucket/prefix?{query}"), &StoreOptions::default());
        let error = options("proxy=http://user:password@proxy:3128").map(drop).map_err(|error| error.kind());
        assert_eq!(error, Err(Kind::Usage));
        assert!(options("proxy=http://proxy:3128").is_ok());
    }
}
