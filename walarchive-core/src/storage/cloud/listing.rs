//! Listings page by page, of stores that may repeat themselves.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

use super::super::object::{Root, failed};
use super::super::{Entry, key};
use crate::error::{Error, Kind, Result};

/// What a listing has named: hashes, as there may be millions of keys.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Seen {
    /// Whether this comes for the first time.
    pub(super) fn first(&mut self, named: impl Hash) -> bool {
        self.hashes.insert(self.hasher.hash_one(named))
    }
}

/// A store that lists the same again and again would be listed for ever.
pub(super) fn repeats(attempt: &str, prefix: &str, what: &str) -> Error {
    let place = if prefix.is_empty() { "the archive" } else { prefix };
    let message = format!("{attempt} {place}: the store repeats itself, it named {what} before");
    Error::new(Kind::Unreachable, message).on(place)
}

/// A listing of what is below a prefix.
struct Listing {
    client: Arc<dyn PaginatedListStore>,
    prefix: String,
    path: Option<String>,
    delimiter: Option<&'static str>,
    tokens: Seen,
    /// Of the next page; none when there is no other.
    next: Option<PaginatedListOptions>,
}

impl Listing {
    fn new(
        client: Arc<dyn PaginatedListStore>,
        root: &Root,
        prefix: &str,
        delimiter: Option<&'static str>,
    ) -> Result<Listing> {
        let path = root.prefix(prefix)?.map(|path| format!("{path}/"));
        let next = Some(PaginatedListOptions::default());
        Ok(Listing { client, prefix: prefix.to_owned(), path, delimiter, tokens: Seen::default(), next })
    }

    /// The next page, until there is none.
    async fn page(&mut self) -> Result<Option<ListResult>> {
        let Some(options) = self.next.take() else { return Ok(None) };
        let options = PaginatedListOptions { delimiter: self.delimiter.map(Into::into), ..options };
        let page = self.client.list_paginated(self.path.as_deref(), options).await;
        let page = page.map_err(|source| failed("listing", &self.prefix, source))?;
        if let Some(token) = page.page_token.filter(|token| !token.is_empty()) {
            if !self.tokens.first(&token) {
                return Err(self.repeats("the next page"));
            }
            self.next = Some(PaginatedListOptions { page_token: Some(token), ..Default::default() });
        }
        Ok(Some(page.result))
    }

    fn repeats(&self, what: &str) -> Error {
        repeats("listing", &self.prefix, what)
    }
}

/// All objects below `prefix`, each once.
pub(super) fn objects(
    client: Arc<dyn PaginatedListStore>,
    root: Root,
    prefix: &str,
) -> BoxStream<'static, Result<Entry>> {
    let listing = match Listing::new(client, &root, prefix, None) {
        Ok(listing) => listing,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let pages = stream::try_unfold((listing, Seen::default()), move |(mut listing, mut seen)| {
        let root = root.clone();
        async move {
            let Some(page) = listing.page().await? else { return Ok(None) };
            let entries = entries(&listing, &mut seen, &root, page.objects)?;
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), (listing, seen))))
        }
    });
    pages.try_flatten().boxed()
}

/// The archive's objects among those of a page.
fn entries(listing: &Listing, seen: &mut Seen, root: &Root, found: Vec<ObjectMeta>) -> Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(found.len());
    for ObjectMeta { location, size, .. } in found {
        if !seen.first(location.as_ref()) {
            return Err(listing.repeats(&format!("{:?}", location.as_ref())));
        }
        entries.extend(root.key(location.as_ref()).map(|key| Entry { key, size }));
    }
    Ok(entries)
}

/// The names directly below `prefix` that have something below them.
pub(super) async fn directories(
    client: Arc<dyn PaginatedListStore>,
    root: &Root,
    prefix: &str,
) -> Result<Vec<String>> {
    let mut listing = Listing::new(client, root, prefix, Some("/"))?;
    let (mut names, mut objects) = (BTreeSet::new(), Seen::default());
    while let Some(page) = listing.page().await? {
        let listed = !page.common_prefixes.is_empty() || !page.objects.is_empty();
        let known = names.len();
        names.extend(page.common_prefixes.iter().filter_map(Path::filename).map(str::to_owned));
        let fresh = page.objects.iter().filter(|found| objects.first(found.location.as_ref())).count();
        // A name may stand on two pages, but not all names of a page on pages before it.
        if listed && names.len() == known && fresh == 0 {
            return Err(listing.repeats("all of a page"));
        }
    }
    names.retain(|name| key::is_segment(name));
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use object_store::list::PaginatedListResult;

    use super::*;

    /// What one page names, and the token of the next page.
    type Answer = (&'static [&'static str], Option<String>);

    /// Answers by the number of the request.
    struct Script(AtomicUsize, fn(usize) -> Answer);

    #[async_trait]
    impl PaginatedListStore for Script {
        async fn list_paginated(
            &self,
            prefix: Option<&str>,
            options: PaginatedListOptions,
        ) -> object_store::Result<PaginatedListResult> {
            assert_eq!(prefix, Some("r/p/"));
            let (names, page_token) = self.1(self.0.fetch_add(1, Ordering::SeqCst));
            let paths = names.iter().map(|name| Path::from(*name));
            let object = |location| ObjectMeta {
                location,
                last_modified: Default::default(),
                size: 1,
                e_tag: None,
                version: None,
            };
            let (objects, common_prefixes) = match options.delimiter {
                Some(_) => (Vec::new(), paths.collect()),
                None => (paths.map(object).collect(), Vec::new()),
            };
            let result = ListResult { objects, common_prefixes, extensions: Default::default() };
            Ok(PaginatedListResult { result, page_token })
        }
    }

    fn list(answers: fn(usize) -> Answer) -> (Result<Vec<String>>, Result<Vec<String>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let script = || Arc::new(Script(AtomicUsize::new(0), answers));
        runtime.block_on(async {
            let objects = objects(script(), Root("r".to_owned()), "p");
            let objects = objects.map_ok(|entry| entry.key).try_collect().await;
            (objects, directories(script(), &Root("r".to_owned()), "p").await)
        })
    }

    #[test]
    fn pages_follow_each_other_in_any_order() {
        let (objects, directories) = list(|number| match number {
            0 => (&["r/p/c", "r/p/b", "s/p/x"], Some("1".to_owned())),
            1 => (&[], Some("2".to_owned())),
            _ => (&["r/p/a"], None),
        });
        assert_eq!(objects.unwrap(), ["p/c", "p/b", "p/a"]);
        assert_eq!(directories.unwrap(), ["a", "b", "c", "x"]);
    }

    #[test]
    fn a_store_that_repeats_itself_is_not_listed_for_ever() {
        let scripts: [fn(usize) -> Answer; 4] = [
            |_| (&[], Some("same".to_owned())),
            |number| (&[], Some(["a", "b"][number % 2].to_owned())),
            |number| (&["r/p/a", "r/p/b"], Some(number.to_string())),
            |number| ([&["other/a"] as &[_], &["other/b"]][number % 2], Some(number.to_string())),
        ];
        for script in scripts {
            let (objects, directories) = list(script);
            for error in [objects.unwrap_err(), directories.unwrap_err()] {
                assert_eq!(error.kind(), Kind::Unreachable);
                assert!(error.story().contains("repeats itself"), "{}", error.story());
            }
        }
    }
}
