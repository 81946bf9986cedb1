use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Storage, Upload};
use crate::error::{Error, Result};

/// An upload for stores that have none: the parts wait in memory, and the object is created with the last of them. An object
/// takes as much memory as it is long.
#[derive(Debug)]
pub struct Gathered {
    storage: Arc<dyn Storage>,
    key: String,
    parts: Mutex<BTreeMap<usize, Vec<Bytes>>>,
}

impl Gathered {
    /// Will create `key` in `storage`.
    pub fn new(storage: Arc<dyn Storage>, key: &str) -> Gathered {
        Gathered { storage, key: key.to_owned(), parts: Mutex::default() }
    }

    fn parts(&self) -> BTreeMap<usize, Vec<Bytes>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Upload for Gathered {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(number, pieces);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let parts = self.parts();
        if parts.keys().copied().ne(0..parts.len()) {
            return Err(Error::bug("an upload was ended that lacks a part").on(&self.key));
        }
        let payload = parts.into_values().flatten().collect();
        // The key is fresh: what is there was put there by this upload, before.
        self.storage.create(&self.key, payload).await.map(drop)
    }

    async fn abort(&self) -> Result<()> {
        drop(mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(())
    }
}
