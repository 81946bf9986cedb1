//! Walks the directories for objects, several at once. One that cannot be read is an error, never left out; what
//! cannot be an object by its name (staging files, `lost+found`) is passed over unread.

use std::sync::Arc;

use futures::future::{BoxFuture, try_join_all};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use russh_sftp::protocol::FileAttributes;

use super::files::Node;
use super::link::Link;
use super::session::{Answer, Failure, Session};
use super::{path, written};
use crate::error::{Error, Result};
use crate::storage::{Entry, Unfinished, key};

/// How many directories are read at once.
const AT_ONCE: usize = 8;

/// All objects below `prefix`.
pub(super) fn objects(link: Arc<Link>, prefix: &str) -> BoxStream<'static, Result<Entry>> {
    walk(link, prefix, |key, node, _| match node {
        Node::File(size) if key::is_key(&key) => Some(Entry { key, size }),
        _ => None,
    })
}

/// All files that writers left, or are writing.
pub(super) fn unfinished(link: Arc<Link>) -> BoxStream<'static, Result<Unfinished>> {
    walk(link, "", |name, node, attributes| {
        let (key, id) = name.split_once('#')?;
        let since = Timestamp::from_second(i64::from(attributes.mtime?)).ok()?;
        let wanted = matches!(node, Node::File(_)) && key::is_key(key) && is_mark(id);
        wanted.then(|| Unfinished { key: key.to_owned(), id: id.to_owned(), since })
    })
}

/// Whether `id` can stand behind the `#` of a staging file's name.
pub(super) fn is_mark(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The names directly below `prefix` that have an object somewhere below them.
pub(super) async fn directories(link: &Link, prefix: &str) -> Result<Vec<String>> {
    let session = link.session().await?;
    link.check(&session).await?;
    let found = async {
        let nodes = read(&session, prefix).await?;
        let names =
            nodes.into_iter().filter(|found| found.node == Node::Directory && key::is_key(&found.key));
        let names: Vec<String> = names.map(|found| found.key).collect();
        let with_objects = names.into_iter().map(|name| async {
            Ok(if has_object(&session, name.clone()).await? { Some(name) } else { None })
        });
        stream::iter(with_objects).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await
    };
    let found: Answer<Vec<Option<String>>> = found.await;
    let found = believed(link, &session, prefix, found).await?;
    link.check(&session).await?;
    let last = |key: String| key.rsplit_once('/').map_or(key.clone(), |(_, name)| name.to_owned());
    Ok(found.into_iter().flatten().map(last).collect())
}

fn has_object(session: &Session, below: String) -> BoxFuture<'_, Answer<bool>> {
    Box::pin(async move {
        let nodes = read(session, &below).await?;
        if nodes.iter().any(|found| matches!(found.node, Node::File(_)) && key::is_key(&found.key)) {
            return Ok(true);
        }
        for found in nodes {
            if found.node == Node::Directory
                && key::is_key(&found.key)
                && has_object(session, found.key).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// An error while listing; that something is missing means that the root is missing.
async fn believed<T>(link: &Link, session: &Session, prefix: &str, answer: Answer<T>) -> Result<T> {
    match answer {
        Ok(found) => Ok(found),
        Err(failure) => {
            if matches!(failure, Failure::Refused(..)) {
                link.check(session).await?;
            }
            Err(written(failure.explain("listing", prefix)))
        }
    }
}

/// Everything below `prefix` that `pick` makes something of, batch by batch. The root is checked at both ends:
/// directories that vanish with it would else pass for empty ones.
fn walk<T: Send + 'static>(
    link: Arc<Link>,
    prefix: &str,
    pick: fn(String, Node, &FileAttributes) -> Option<T>,
) -> BoxStream<'static, Result<T>> {
    if let Err(error) = key::prefix(prefix) {
        return stream::once(async { Err(error) }).boxed();
    }
    let begin = Walk { link, pending: vec![prefix.to_owned()], session: None };
    let batches = stream::try_unfold(Some(begin), move |walk| async move {
        match walk {
            Some(walk) => walk.batch(pick).await.map(Some),
            None => Ok::<_, Error>(None),
        }
    });
    batches.map_ok(|batch| stream::iter(batch.into_iter().map(Ok))).try_flatten().boxed()
}

/// A walk under way. It keeps to one connection: a directory of it is read whole or not at all.
struct Walk {
    link: Arc<Link>,
    pending: Vec<String>,
    session: Option<Arc<Session>>,
}

impl Walk {
    async fn batch<T>(
        mut self,
        pick: fn(String, Node, &FileAttributes) -> Option<T>,
    ) -> Result<(Vec<T>, Option<Self>)> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let session = self.link.session().await?;
                self.link.check(&session).await?;
                session
            }
        };
        let rest = self.pending.len().saturating_sub(AT_ONCE);
        let now = self.pending.split_off(rest);
        let read = try_join_all(now.iter().map(|directory| read(&session, directory))).await;
        let read = believed(&self.link, &session, now.first().map_or("", String::as_str), read).await?;
        let mut picked = Vec::new();
        for found in read.into_iter().flatten() {
            if found.node == Node::Directory {
                if key::is_key(&found.key) {
                    self.pending.push(found.key);
                }
            } else {
                picked.extend(pick(found.key, found.node, &found.attributes));
            }
        }
        if self.pending.is_empty() {
            self.link.check(&session).await?;
            return Ok((picked, None));
        }
        self.session = Some(session);
        Ok((picked, Some(self)))
    }
}

/// One name in a directory, from the root on.
struct Found {
    key: String,
    node: Node,
    attributes: FileAttributes,
}

/// All names in a directory; none, when it is not there or is no directory.
async fn read(session: &Session, directory: &str) -> Answer<Vec<Found>> {
    let place = path(session, directory);
    let names = match session.names(place.trim_end_matches('/')).await {
        Err(failure) if failure.is_absent() => return Ok(Vec::new()),
        Err(failure) if failure.is_vague() => match session.look(&place).await? {
            None | Some(Node::File(_)) => return Ok(Vec::new()),
            _ => return Err(failure),
        },
        other => other?,
    };
    let mut found = Vec::new();
    for (name, attributes) in names {
        let key = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        let node = match Node::of(&attributes) {
            // A listing does not follow symbolic links.
            Node::Other if key::is_key(&key) => {
                session.look(&path(session, &key)).await?.unwrap_or(Node::Other)
            }
            node => node,
        };
        found.push(Found { key, node, attributes });
    }
    Ok(found)
}
