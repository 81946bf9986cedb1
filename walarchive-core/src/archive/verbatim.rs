//! Objects copied byte by byte between the stores of one archive.

use std::sync::Arc;

use bytes::Bytes;

use super::object::Outside;
use super::proof::{Proof, kind_of};
use super::{Archive, PackRecord};
use crate::crossing::blocking;
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
    /// Copies an object here from another copy of the archive, if it is not here yet. Nothing that is here is changed. As it
    /// passes, it is proven as [`prove`](Archive::prove) proves it with the keys of the source, `record` being what a manifest
    /// says of a pack; and then, that the copy can be read.
    ///
    /// # Errors
    ///
    /// `Absent` when the source has no such object, `Damaged` when it does not hold, `Conflict` when there is other content
    /// under that name here.
    pub async fn bring(&self, from: &Archive, key: &str, record: Option<&PackRecord>) -> Result<Brought> {
        let source = from.look_at(key, kind_of(key)?).await?;
        let proof = Proof::begin(from, &source, key, record).await?;
        match self.storage.size(key).await {
            Ok(_) => return self.is_same(key, &source).await,
            Err(error) if error.kind() == Kind::Absent => {}
            Err(error) => return Err(error),
        }
        let step = self.storage.parts().size as u64;
        if source.object_size <= step {
            let whole = from.stored_part(key, 0..source.object_size).await?;
            Passing::new(proof, &source).take(whole.clone()).await?.finish().await?;
            if self.storage.create(key, vec![whole]).await? == Created::Exists {
                return self.is_same(key, &source).await;
            }
        } else {
            // What is this long has a name of its own, which nobody else writes.
            let upload: Arc<dyn Upload> = self.storage.upload(key).await?.into();
            let sent = send(from, key, Passing::new(proof, &source), step, upload.as_ref()).await;
            if let Err(error) = sent {
                // The error that counts is the first one.
                let _ = upload.abort().await;
                return Err(error);
            }
            upload.finish().await?;
        }
        self.is_same(key, &source).await.map(|_| Brought::New(source.object_size))
    }

    /// Whether there is the same object here as in another copy of the archive, or the same content for other readers.
    pub async fn has_same(&self, from: &Archive, key: &str) -> Result<bool> {
        let same = match from.look_at(key, kind_of(key)?).await {
            Ok(source) => self.is_same(key, &source).await.map(drop),
            Err(error) => Err(error),
        };
        match same {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::Damaged | Kind::Absent) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn is_same(&self, key: &str, source: &Outside) -> Result<Brought> {
        let kind = source.binding.kind();
        let own = self.look_at(key, kind).await?;
        let length = |outside: &Outside| outside.object_size - outside.head.len as u64;
        let same_payload = own.head.payload.is_some() && own.head.payload == source.head.payload;
        let verbatim =
            (same_payload || own.head_bytes == source.head_bytes) && length(&own) == length(source);
        let content = own.binding.digest.is_some() && own.binding.digest == source.binding.digest;
        let whole = own.binding.stored.map(|payload| payload + own.head.len as u64);
        if content && !verbatim && whole != Some(own.object_size) {
            return Err(Error::damaged(format!(
                "the same content is there, but its object has {} bytes where {} belong",
                own.object_size,
                whole.unwrap_or_default()
            ))
            .on(key)
            .hint("nothing was changed; 'walarchive verify --repair-from' replaces it"));
        }
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

async fn send(from: &Archive, key: &str, mut passing: Passing, step: u64, upload: &dyn Upload) -> Result<()> {
    let mut at = 0;
    for number in 0.. {
        let end = (at + step).min(passing.size);
        let bytes = from.stored_part(key, at..end).await?;
        let (taken, sent) = futures::join!(passing.take(bytes.clone()), upload.part(number, vec![bytes]));
        sent?;
        passing = taken?;
        at = end;
        if at == passing.size {
            break;
        }
    }
    passing.finish().await
}

/// An object that is proven as it passes.
struct Passing {
    proof: Proof,
    head: usize,
    size: u64,
}

impl Passing {
    fn new(proof: Proof, source: &Outside) -> Passing {
        Passing { proof, head: source.head.len, size: source.object_size }
    }

    async fn take(mut self, bytes: Bytes) -> Result<Passing> {
        blocking(move || {
            let skip = self.head.min(bytes.len());
            self.head -= skip;
            self.proof.push(&bytes[skip..])?;
            Ok(self)
        })
        .await
    }

    async fn finish(self) -> Result<()> {
        blocking(move || self.proof.finish()).await
    }
}
