//! Where the archive is: one store, or several as one.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::{ARCHIVE, ARCHIVE_POLICY, CLUSTER, STATE_DIR, STORE_RETRY_BUDGET, Settings};
use crate::behind::Notes;
use crate::error::{Error, Result};
use crate::patience::Patience;
use crate::storage::{self, CreateMode, Mirrored, Policy, Storage, StoreOptions};

/// Where notes are kept, when nothing else is said.
const DEFAULT_STATE_DIR: &str = "/var/lib/walarchive";

/// What stands before the name of a store's option in its key.
pub(super) const STORE: &str = "store.";

impl Settings {
    fn url(&self) -> Result<&str> {
        self.text(&ARCHIVE).ok_or_else(|| {
            Error::usage("no archive is named").hint("set --archive, WALARCHIVE_ARCHIVE or 'archive' in the settings file, for example file:///srv/archive")
        })
    }

    /// Whether a flag names the archive or the cluster.
    pub fn names_archive_by_flag(&self) -> bool {
        [ARCHIVE, CLUSTER]
            .iter()
            .any(|setting| self.values.get(setting.key).is_some_and(|(_, place)| place.starts_with("--")))
    }

    /// The same settings, of another archive.
    #[must_use]
    pub fn with_archive(&self, url: &str) -> Settings {
        let mut values = self.values.clone();
        values.insert(ARCHIVE.key, (url.to_owned(), "the command line".to_owned()));
        Settings {
            values,
            file: self.file.clone(),
            variables: self.variables.clone(),
            envdir: self.envdir.clone(),
            tell: self.tell.clone(),
            notes: OnceLock::new(),
        }
    }

    /// How the store is used, with this patience.
    pub fn store_options(&self, patience: &Patience) -> Result<StoreOptions> {
        let mut options = StoreOptions {
            patience: patience.clone(),
            variables: self.variables.clone(),
            ..StoreOptions::default()
        };
        for (key, (value, place)) in &self.values {
            match key.strip_prefix(STORE) {
                Some(name) if *key != STORE_RETRY_BUDGET.key => options
                    .set(name, value)
                    .map_err(|error| error.during(format!("{key} (set by {place})")))?,
                _ => {}
            }
        }
        Ok(options)
    }

    /// Where the archive is: the primary first, then its mirrors.
    fn urls(&self) -> Result<Vec<String>> {
        let urls = split_urls(self.url()?);
        if urls.is_empty() {
            return Err(Error::usage("the setting 'archive' names no archive"));
        }
        Ok(urls)
    }

    /// When an object counts as stored, where the archive has mirrors.
    pub fn archive_policy(&self) -> Result<Policy> {
        self.parsed(&ARCHIVE_POLICY, Policy::default(), |text| match text {
            "all" => Ok(Policy::All),
            "any" => Ok(Policy::Any),
            _ => Err(Error::usage(format!("{text:?} is not a policy")).hint(
                "'all': stored is what every mirror has; 'any': what one has, the others are caught up later",
            )),
        })
    }

    /// Who hears of mirrors that are behind, damaged or cannot be reached; nobody without it.
    pub fn tell(&mut self, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.tell = Some(Arc::new(tell));
    }

    /// Where this machine remembers what it has stored, and what mirrors lack.
    pub fn state_dir(&self) -> PathBuf {
        PathBuf::from(self.text(&STATE_DIR).unwrap_or(DEFAULT_STATE_DIR))
    }

    /// What mirrors are noted to lack, in the state directory.
    pub fn notes(&self) -> Arc<Notes> {
        let open = || {
            let tell = self.tell.clone();
            Arc::new(Notes::new(&self.state_dir(), move |text| {
                if let Some(tell) = &tell {
                    tell(text);
                }
            }))
        };
        self.notes.get_or_init(open).clone()
    }

    /// The store that the archive is in; several as one where mirrors are named.
    pub async fn storage(&self, patience: &Patience) -> Result<Arc<dyn Storage>> {
        let options = self.store_options(patience)?;
        match self.urls()?.as_slice() {
            [url] => storage::open(url, &options).await,
            urls => self.mirrors(urls, &options, false),
        }
    }

    /// The same; directories are made if they are not there.
    pub async fn new_storage(&self, patience: &Patience) -> Result<Arc<dyn Storage>> {
        let options = self.store_options(patience)?;
        match self.urls()?.as_slice() {
            [url] => storage::create(url, &options).await,
            urls => self.mirrors(urls, &options, true),
        }
    }

    fn mirrors(&self, urls: &[String], options: &StoreOptions, new: bool) -> Result<Arc<dyn Storage>> {
        let mirrored = Mirrored { urls, policy: self.archive_policy()?, witness: self.notes() };
        Ok(Arc::new(storage::open_mirrors(mirrored, options, new)?))
    }

    /// The archive's stores, the primary first: their names, and how they create objects.
    pub fn stores(&self) -> Result<Vec<(String, CreateMode)>> {
        let options = self.store_options(&Patience::none())?;
        let urls = self.urls()?;
        let stores =
            urls.iter().map(|url| Ok((storage::shown(url).to_owned(), storage::create_mode(url, &options)?)));
        stores.collect()
    }

    /// The archive's URL, or URLs, for messages: without queries, which may hold a proxy's password.
    pub fn archive_url(&self) -> Result<String> {
        let urls = self.urls()?;
        Ok(urls.iter().map(|url| storage::shown(url)).collect::<Vec<_>>().join(" "))
    }
}

/// Splits at the ends of lines, and where white space is followed by the beginning of a url; other white space is part of
/// a path.
pub(super) fn split_urls(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    let mut new_line = true;
    for word in text.split_inclusive(char::is_whitespace) {
        let scheme = word.split_once("://").map(|(scheme, _)| scheme);
        let is_scheme =
            |scheme: &str| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match urls.last_mut() {
            Some(url) if !new_line && !scheme.is_some_and(is_scheme) => url.push_str(word),
            _ => urls.push(word.to_owned()),
        }
        new_line = word.ends_with('\n');
    }
    urls.iter().map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
}

/// Several archives in one line: a plain path becomes a url, as only a url is seen to begin.
pub(super) fn in_one_line(urls: &[String]) -> String {
    let word = |url: &String| match url.starts_with('/') {
        true => format!(
            "file://{}",
            url.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace(' ', "%20")
        ),
        false => url.clone(),
    };
    match urls {
        [one] => one.clone(),
        several => several.iter().map(word).collect::<Vec<_>>().join(" "),
    }
}
