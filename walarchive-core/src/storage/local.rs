//! An archive in a directory.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;

use super::object::{Objects, failed, failed_io, io_cause};
use super::root::{self, Root};
use super::walk::{self, Walk};
use super::{Created, Entry, Part, Storage, Unfinished, Upload, key};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};

/// How many entries of a listing are read at a time.
const BATCH: usize = 1000;

/// An archive in a directory of this machine or of a mounted file system, which must know hard links.
///
/// The root directory is looked up before and after each operation. Is it gone, or another one than at
/// [`open`](LocalStorage::open), the operation is [`Kind::Unreachable`], and nothing is believed absent. The
/// root is never made anew, save by [`create_root`](LocalStorage::create_root).
///
/// An object is written under a name that ends in `#` and a number, synced, then linked to its own name, and
/// its directory synced. Files of dead writers keep such a name: they are the store's
/// [`unfinished`](Storage::unfinished) uploads, and nothing else here lists or reads them.
#[derive(Debug)]
pub struct LocalStorage {
    root: Root,
    objects: Objects,
}

impl LocalStorage {
    /// Opens the archive's directory.
    ///
    /// # Errors
    ///
    /// `Usage` when `path` is not absolute or not a directory, `Unreachable` when it is not there, `Local`
    /// when it may not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let root = Root::open(path.as_ref())?;
        let store = LocalFileSystem::new_with_prefix(root.path());
        let store = store.map_err(|source| failed("opening", "", source))?.with_fsync(true);
        Ok(LocalStorage { root, objects: Objects::new(Arc::new(store)) })
    }

    /// Makes the directory with all that lead to it, durably, and opens it. The mode of a new root is 0700;
    /// a directory that exists is taken as it is.
    ///
    /// # Errors
    ///
    /// As [`open`](LocalStorage::open), and `Local` when a directory cannot be made.
    pub fn create_root(path: impl AsRef<Path>) -> Result<Self> {
        root::create(path.as_ref())?;
        LocalStorage::open(path)
    }

    async fn check(&self) -> Result<()> {
        let root = self.root.clone();
        blocking(move || root.check()).await
    }

    /// An object's absence, or why it is not proven.
    async fn really(&self, key: &str, absent: Error) -> Error {
        let (root, name) = (self.root.clone(), key.to_owned());
        blocking(move || root.prove_absent(&name)).await.err().unwrap_or(absent)
    }

    /// Whether `result` can be believed: an error may come from a root that is gone.
    async fn read<T>(&self, key: &str, result: Result<T>) -> Result<T> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        self.check().await?;
        // A name that leads through a file is the name of nothing.
        if io_cause(&error).is_some_and(|cause| cause.kind() == io::ErrorKind::NotADirectory) {
            let message = error.to_string();
            let object = error.object().unwrap_or_default().to_owned();
            let absent = Error::new(Kind::Absent, message).on(object).because(error);
            return Err(self.really(key, absent).await);
        }
        Err(if error.kind() == Kind::Absent { self.really(key, error).await } else { error })
    }
}

/// Names the directory in an error about one of its objects.
fn at(root: &Root, error: Error) -> Error {
    error.during(format_args!("archive in {}", root.path().display()))
}

#[async_trait]
impl Storage for LocalStorage {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        key::object(key)?;
        let (root, name) = (self.root.clone(), key.to_owned());
        // What is there already need not be written and synced under another name first, to find that out.
        let there = blocking(move || {
            root.make_parents(&name)?;
            Ok(root.has_name(&name))
        })
        .await?;
        let created = if there { Ok(Created::Exists) } else { self.objects.create(key, payload).await };
        let created = match created {
            Ok(created) => created,
            Err(error) => {
                self.check().await?;
                return Err(at(&self.root, written(error)));
            }
        };
        let (root, name) = (self.root.clone(), key.to_owned());
        blocking(move || {
            // Another writer may have died between making the name and making it durable.
            if created == Created::Exists {
                root.sync_object(&name).map_err(written)?;
            }
            root.check()
        })
        .await?;
        Ok(created)
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        key::object(key)?;
        let (root, name) = (self.root.clone(), key.to_owned());
        blocking(move || root.make_parents(&name)).await?;
        let upload = self.objects.upload(key).await.map_err(written);
        let upload = upload.map_err(|error| at(&self.root, error))?;
        Ok(Box::new(LocalUpload { upload, root: self.root.clone() }))
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.upload(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        key::object(key)?;
        let (root, name) = (self.root.clone(), key.to_owned());
        blocking(move || root.check_file(&name)).await?;
        self.read(key, self.objects.get(key, range).await).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.read(key, self.objects.size(key).await).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        if let Err(error) = key::prefix(prefix) {
            return stream::once(async { Err(error) }).boxed();
        }
        let listing = Listing { root: self.root.clone(), prefix: prefix.to_owned(), walk: None };
        let batches = stream::try_unfold(Some(listing), |listing| async {
            match listing {
                Some(listing) => blocking(move || listing.batch().map(Some)).await,
                None => Ok(None),
            }
        });
        batches.map_ok(|batch| stream::iter(batch.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        key::prefix(prefix)?;
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        blocking(move || {
            root.check()?;
            let found = walk::directories(root.path(), &prefix);
            root.check()?;
            found.map_err(|source| at(&root, failed_io("listing", &prefix, source)))
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        key::object(key)?;
        let (root, key) = (self.root.clone(), key.to_owned());
        blocking(move || root.remove_object(&key)).await
    }

    async fn tidy(&self, prefix: &str) -> Result<()> {
        key::object(prefix)?;
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        blocking(move || root.tidy(&prefix)).await
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        let root = self.root.clone();
        let found = blocking(move || {
            root.check()?;
            let found = walk::staging(root.path());
            root.check()?;
            found.map_err(|source| at(&root, failed_io("looking for unfinished files in", "", source)))
        });
        stream::once(found).map_ok(|found| stream::iter(found.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        let (parent, name) = match unfinished.id.rsplit_once('/') {
            Some((parent, name)) => (Some(parent), name),
            None => (None, unfinished.id.as_str()),
        };
        let object = walk::staged(name).map(|object| match parent {
            Some(parent) => format!("{parent}/{object}"),
            None => object.to_owned(),
        });
        let object = object.filter(|object| *object == unfinished.key && key::is_key(object));
        let Some(object) = object else {
            return Err(Error::bug(format!("{:?} is no unfinished file of an archive", unfinished.id)));
        };
        let (root, id) = (self.root.clone(), unfinished.id.clone());
        blocking(move || root.remove_object(&id)).await.map_err(|error| error.on(object))
    }
}

/// Something missing while writing is trouble of this machine, not an absent object.
fn written(error: Error) -> Error {
    if error.kind() != Kind::Absent {
        return error;
    }
    let object = error.object().unwrap_or_default().to_owned();
    Error::new(Kind::Local, error.to_string()).on(object).because(error)
}

/// A listing under way.
struct Listing {
    root: Root,
    prefix: String,
    walk: Option<Walk>,
}

impl Listing {
    /// The next entries, and what is left after them. The root is checked at both ends: directories that
    /// vanish with it would else pass for empty ones.
    fn batch(mut self) -> Result<(Vec<Entry>, Option<Self>)> {
        if self.walk.is_none() {
            self.root.check()?;
        }
        let mut batch = Vec::new();
        let more = self.fill(&mut batch);
        match more {
            Ok(true) => Ok((batch, Some(self))),
            Ok(false) => self.root.check().map(|()| (batch, None)),
            Err(source) => {
                self.root.check()?;
                Err(at(&self.root, failed_io("listing", &self.prefix, source)))
            }
        }
    }

    fn fill(&mut self, batch: &mut Vec<Entry>) -> io::Result<bool> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => Walk::new(self.root.path(), &self.prefix)?,
        };
        while batch.len() < BATCH {
            match walk.next()? {
                Some(entry) => batch.push(entry),
                None => return Ok(false),
            }
        }
        self.walk = Some(walk);
        Ok(true)
    }
}

/// An upload into a directory that must still be there at the end.
struct LocalUpload {
    upload: Box<dyn Upload>,
    root: Root,
}

#[async_trait]
impl Upload for LocalUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        self.upload.part(number, pieces).await.map_err(|error| at(&self.root, error))
    }

    async fn finish(&self) -> Result<()> {
        let finished = self.upload.finish().await;
        let root = self.root.clone();
        blocking(move || root.check()).await?;
        finished.map_err(|error| at(&self.root, written(error)))
    }

    async fn abort(&self) -> Result<()> {
        self.upload.abort().await.map_err(|error| at(&self.root, error))
    }
}
