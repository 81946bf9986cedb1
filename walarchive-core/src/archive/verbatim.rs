//! Objects copied byte by byte between the stores of one archive.

use std::sync::Arc;

use bytes::Bytes;

use super::object::Outside;
use super::{Archive, key};
use crate::error::{Error, Kind, Result};
use crate::storage::{Created, Upload};

/// What became of an object that was to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// It was copied; so many stored bytes.
    New(u64),
    /// The same object, or the same content, was there.
    There,
}

impl Archive {
    /// Copies an object here from another copy of the archive, if it is not here yet. Nothing that is here is changed. It
    /// is proven, as far as that needs no key, that the source is the object that its key says, and whole, and that
    /// the copy can be read.
    ///
    /// # Errors
    ///
    /// `Absent` when the source has no such object, `Damaged` when it does not hold, `Conflict` when there is other content
    /// under that name here.
    pub async fn bring(&self, from: &Archive, key: &str) -> Result<Brought> {
        let (kind, _) = key::kind_of(key)
            .ok_or_else(|| Error::damaged("an object has a name that no archive gives").on(key))?;
        let source = from.look_at(key, kind).await?;
        let head = source.head.len as u64;
        if source.binding.stored.is_some_and(|payload| payload + head != source.object_size) {
            return Err(Error::damaged("the object has another length than it says").on(key));
        }
        match self.storage.size(key).await {
            Ok(_) => return self.is_same(key, &source).await,
            Err(error) if error.kind() == Kind::Absent => {}
            Err(error) => return Err(error),
        }
        let step = self.storage.parts().size as u64;
        if source.object_size <= step {
            let whole = part(from, key, 0, source.object_size).await?;
            Sum::of(&source).all(&whole, key)?;
            if self.storage.create(key, vec![whole]).await? == Created::Exists {
                return self.is_same(key, &source).await;
            }
        } else {
            // What is this long has a name of its own, which nobody else writes.
            let upload: Arc<dyn Upload> = self.storage.upload(key).await?.into();
            let sent = send(from, key, &source, step, upload.as_ref()).await;
            if let Err(error) = sent {
                // The error that counts is the first one.
                let _ = upload.abort().await;
                return Err(error);
            }
            upload.finish().await?;
        }
        self.is_same(key, &source).await.map(|_| Brought::New(source.object_size))
    }

    async fn is_same(&self, key: &str, source: &Outside) -> Result<Brought> {
        let kind = source.binding.kind();
        let own = self.look_at(key, kind).await?;
        let verbatim = own.head_bytes == source.head_bytes && own.object_size == source.object_size;
        let content = own.binding.digest.is_some() && own.binding.digest == source.binding.digest;
        if verbatim || content {
            return Ok(Brought::There);
        }
        Err(Error::new(
            Kind::Conflict,
            "two mirrors hold different content under one name; nothing was changed",
        )
        .on(key))
    }
}

async fn part(from: &Archive, key: &str, start: u64, end: u64) -> Result<Bytes> {
    let part = from.storage.get(key, Some(start..end)).await?;
    if part.bytes.len() as u64 != end - start {
        return Err(Error::damaged("the object is shorter than it was").on(key));
    }
    Ok(part.bytes)
}

async fn send(from: &Archive, key: &str, source: &Outside, step: u64, upload: &dyn Upload) -> Result<()> {
    let mut sum = Sum::of(source);
    let mut at = 0;
    for number in 0.. {
        let end = (at + step).min(source.object_size);
        let bytes = part(from, key, at, end).await?;
        sum.update(&bytes);
        upload.part(number, vec![bytes]).await?;
        at = end;
        if at == source.object_size {
            break;
        }
    }
    sum.finish(key)
}

/// The sum that an object of a plain archive says its payload has.
struct Sum {
    head: usize,
    expected: Option<String>,
    hasher: blake3::Hasher,
}

impl Sum {
    fn of(source: &Outside) -> Sum {
        Sum { head: source.head.len, expected: source.binding.sum.clone(), hasher: blake3::Hasher::new() }
    }

    fn update(&mut self, bytes: &[u8]) {
        let skip = self.head.min(bytes.len());
        self.head -= skip;
        if self.expected.is_some() {
            self.hasher.update(bytes.get(skip..).unwrap_or_default());
        }
    }

    fn finish(self, key: &str) -> Result<()> {
        match self.expected {
            Some(expected) if expected != self.hasher.finalize().to_hex().as_str() => {
                Err(Error::damaged("the object does not match its checksum; it was not copied").on(key))
            }
            _ => Ok(()),
        }
    }

    fn all(mut self, bytes: &[u8], key: &str) -> Result<()> {
        self.update(bytes);
        self.finish(key)
    }
}
