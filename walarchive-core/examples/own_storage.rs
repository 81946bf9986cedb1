//! An archive in a store of one's own: here a map in memory, in fifty lines. Segments that are given as arguments go in and
//! come back.
#![allow(clippy::print_stdout)] // A program prints.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use walarchive_core::archive::Keys;
use walarchive_core::cipher::age::Identity;
use walarchive_core::source::WalFile;
use walarchive_core::storage::{Created, Entry, Gathered, Part, Storage, Upload};
use walarchive_core::{Archive, Error, Kind, Result};

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Objects in a map.
#[derive(Debug, Clone, Default)]
pub struct InMap(Objects);

fn locked(objects: &Objects) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Storage for InMap {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        let mut objects = locked(&self.0);
        if objects.contains_key(key) {
            return Ok(Created::Exists);
        }
        objects.insert(key.to_owned(), payload.concat().into());
        Ok(Created::New)
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Gathered::new(Arc::new(self.clone()), key)))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        let object = locked(&self.0).get(key).cloned();
        let object = object.ok_or_else(|| Error::new(Kind::Absent, "there is no such object").on(key))?;
        let end = object.len() as u64;
        let range = range.unwrap_or(0..end);
        let from = range.start.min(end);
        let bytes = object.slice(from as usize..range.end.clamp(from, end) as usize);
        Ok(Part { bytes, object_size: end })
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let objects = locked(&self.0);
        let found = objects.iter().filter(|(key, _)| key.starts_with(&below));
        let entries = found.map(|(key, object)| Ok(Entry { key: key.clone(), size: object.len() as u64 }));
        stream::iter(entries.collect::<Vec<_>>()).boxed()
    }

    async fn delete(&self, key: &str) -> Result<()> {
        locked(&self.0).remove(key);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let store = InMap::default();
    Archive::init(&store, true).await?;
    let archive = Archive::open(Arc::new(store.clone()), Keys::of(Identity::generate()?)).await?;
    let cluster = archive.cluster("main".parse()?);
    for segment in std::env::args().skip(1) {
        let file = WalFile::at(segment.as_ref())?;
        cluster.push(&file.path).await?;
        let copy = format!("{segment}.copy");
        cluster.fetch(&file.name, &copy).await?;
        println!("{} went in and came back as {copy}", file.name);
    }
    println!("the map holds {} objects", locked(&store.0).len());
    Ok(())
}
