//! Mirrors as one store.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::upload::MirrorUpload;
use super::{Mirrors, worst};
use crate::error::{Error, Kind, Result};
use crate::storage::steady::is_stored;
use crate::storage::{Created, Entry, Part, Parts, Storage, Unfinished, Upload};

#[async_trait]
impl Storage for Mirrors {
    /// [`Created::Exists`] when any mirror had an object of that name, which may be another one. What the primary has is
    /// what the others get then, so that they stay the same.
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        // An answer that was lost leaves open who stored the object that is found later.
        let doubt: Vec<AtomicBool> = self.members.iter().map(|_| AtomicBool::new(false)).collect();
        let decided: OnceLock<Vec<Bytes>> = OnceLock::new();
        let write = |number: usize, store: Arc<dyn Storage>| {
            let (doubt, decided, payload) = (doubt.get(number), &decided, &payload);
            async move {
                let wanted = decided.get().unwrap_or(payload);
                let created = store.create(key, wanted.clone()).await;
                if let (Some(doubt), Err(error)) = (doubt, &created) {
                    doubt.fetch_or(error.kind().is_transient(), Ordering::Relaxed);
                }
                let (first, doubted) =
                    (decided.get().is_none(), doubt.is_some_and(|doubt| doubt.load(Ordering::Relaxed)));
                let mut created = created?;
                if created == Created::Exists {
                    // Another writer may have brought this mirror what the first one decided on.
                    let same = match is_stored(store.as_ref(), key, wanted).await {
                        // Without the right to read, who wrote it stays open.
                        Err(error) if error.kind() == Kind::Denied => return Ok(Created::Exists),
                        same => same?,
                    };
                    if same && (doubted || !first) {
                        created = Created::New;
                    } else if first && !same {
                        let _ = decided.set(vec![store.get(key, None).await?.bytes]);
                    }
                }
                // Once one has it, the others follow it.
                let _ = decided.set(payload.clone());
                Ok(created)
            }
        };
        let created = self.write(key, write).await?;
        Ok(if created.contains(&Created::Exists) { Created::Exists } else { Created::New })
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(MirrorUpload::start(self, key).await?))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        let range = &range;
        self.first(|store| async move { store.get(key, range.clone()).await }).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.first(|store| async move { store.size(key).await }).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let (mirrors, prefix) = (self.clone(), prefix.to_owned());
        let listed = async move {
            let prefix = prefix.as_str();
            let lists = mirrors
                .gather(|store| async move { store.list(prefix).try_collect::<Vec<_>>().await })
                .await?;
            let mut union = BTreeMap::new();
            for entry in lists.into_iter().flat_map(|(_, list)| list) {
                union.entry(entry.key).or_insert(entry.size);
            }
            Ok(stream::iter(union.into_iter().map(|(key, size)| Ok(Entry { key, size }))))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        let lists = self.gather(|store| async move { store.list_dirs(prefix).await }).await?;
        let union: BTreeSet<String> = lists.into_iter().flat_map(|(_, list)| list).collect();
        Ok(union.into_iter().collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.everywhere(|store| async move { store.delete(key).await }).await
    }

    async fn tidy(&self, prefix: &str) -> Result<()> {
        self.everywhere(|store| async move { store.tidy(prefix).await }).await
    }

    fn parts(&self) -> Parts {
        self.parts.clone()
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        let mirrors = self.clone();
        let listed = async move {
            let lists = mirrors
                .gather(|store| async move { store.unfinished().try_collect::<Vec<_>>().await })
                .await?;
            let numbered = lists.into_iter().flat_map(|(number, list)| {
                list.into_iter()
                    .map(move |found| Unfinished { id: format!("{number}:{}", found.id), ..found })
            });
            Ok(stream::iter(numbered.map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        let unknown = || Error::bug(format!("{} is an unfinished upload of no mirror", unfinished.id));
        let (number, id) = unfinished.id.split_once(':').ok_or_else(unknown)?;
        let number: usize = number.parse().map_err(|_| unknown())?;
        let member = self.members.get(number).ok_or_else(unknown)?;
        let own = Unfinished { id: id.to_owned(), ..unfinished.clone() };
        self.patient(member.store.clone()).discard(&own).await.map_err(|error| member.named(error))
    }

    fn mirrors(&self) -> Option<&Mirrors> {
        Some(self)
    }
}

impl Mirrors {
    /// Does the same in every mirror, whatever the policy.
    async fn everywhere<F>(&self, act: impl Fn(Arc<dyn Storage>) -> F + Send + Sync) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let acts: Vec<_> =
            self.members.iter().map(|member| act(self.patient(member.store.clone()))).collect();
        let results = self.members.iter().zip(join_all(acts).await);
        let failed: Vec<_> =
            results.filter_map(|(member, result)| result.err().map(|error| (member, error))).collect();
        if failed.is_empty() { Ok(()) } else { Err(worst(failed)) }
    }
}
