//! Content made by a blocking worker, to a large object in storage.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::cipher::Seal;
use crate::crossing::Bridge;
use crate::error::{Error, Kind, Result};
use crate::storage::{Created, Parts, Storage, Upload, is_stored};

enum Message {
    Part(Vec<Bytes>, OwnedSemaphorePermit),
    End(Vec<Bytes>),
}

/// An object that was written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Stored bytes.
    pub stored: u64,
    /// BLAKE3 of the stored bytes, if it was asked for.
    pub digest: Option<blake3::Hash>,
}

/// Seals content as it comes and sends it on, parts being stored while the next is made. Dropped without
/// [`finish`](ObjectWriter::finish), it leaves no object. What fits into one part is stored by one request.
///
/// Memory: the part that is being made, and the parts on their way that the store's [`Parts`] allow to all of its
/// writers together.
pub struct ObjectWriter {
    seal: Box<dyn Seal>,
    digest: Option<blake3::Hasher>,
    pieces: Vec<Bytes>,
    held: usize,
    stored: u64,
    parts: Parts,
    messages: mpsc::Sender<Message>,
    upload: JoinHandle<Result<()>>,
    bridge: Bridge,
}

impl ObjectWriter {
    /// Starts the object `key` (fresh, as [`Storage::upload`] demands) with its head.
    pub fn start(
        storage: Arc<dyn Storage>,
        key: String,
        head: Bytes,
        seal: Box<dyn Seal>,
        bridge: &Bridge,
    ) -> ObjectWriter {
        let (messages, receiver) = mpsc::channel(1);
        let parts = storage.parts();
        ObjectWriter {
            seal,
            digest: None,
            held: head.len(),
            stored: 0,
            pieces: vec![head],
            messages,
            upload: bridge.spawn(store(storage, key, parts.most, receiver)),
            parts,
            bridge: bridge.clone(),
        }
    }

    /// Digests what is stored. Called before anything is written.
    pub fn digest(&mut self) {
        self.digest = Some(blake3::Hasher::new());
        count(&self.pieces, &mut self.digest);
    }

    /// Takes the next content.
    pub fn write(&mut self, content: &[u8]) -> Result<()> {
        let before = self.pieces.len();
        self.seal.push(content, &mut self.pieces)?;
        self.held += count(self.pieces.get(before..).unwrap_or_default(), &mut self.digest);
        while self.held >= self.parts.size {
            let part = self.take(self.parts.size);
            self.send(part)?;
        }
        Ok(())
    }

    /// Ends the object: it is visible and durable then.
    pub fn finish(mut self) -> Result<Written> {
        let before = self.pieces.len();
        let seal = self.seal;
        seal.finish(&mut self.pieces)?;
        self.held += count(self.pieces.get(before..).unwrap_or_default(), &mut self.digest);
        let digest = self.digest.map(|digest| digest.finalize());
        let stored = self.stored + self.held as u64;
        let rest = self.pieces;
        let sent = self.messages.blocking_send(Message::End(rest));
        let ended = flatten(self.bridge.wait(self.upload));
        ended?;
        sent.map_err(|_| Error::bug("an upload ended before its last part"))?;
        Ok(Written { stored, digest })
    }

    /// The first `len` of the held bytes.
    fn take(&mut self, len: usize) -> Vec<Bytes> {
        let mut part = Vec::new();
        let mut missing = len;
        let mut pieces = std::mem::take(&mut self.pieces).into_iter();
        for mut piece in pieces.by_ref() {
            if piece.len() > missing {
                part.push(piece.split_to(missing));
                self.pieces.push(piece);
                break;
            }
            missing -= piece.len();
            part.push(piece);
            if missing == 0 {
                break;
            }
        }
        self.pieces.extend(pieces);
        self.held -= len;
        self.stored += len as u64;
        part
    }

    fn send(&mut self, part: Vec<Bytes>) -> Result<()> {
        let permit = permit(&self.parts, &self.bridge)?;
        if self.messages.blocking_send(Message::Part(part, permit)).is_ok() {
            return Ok(());
        }
        // The upload failed; its own error says why.
        match flatten(self.bridge.wait(&mut self.upload)) {
            Err(error) => Err(error),
            Ok(()) => Err(Error::bug("an upload ended before its last part")),
        }
    }
}

/// The bytes of new pieces, digested if that is asked for.
fn count(pieces: &[Bytes], digest: &mut Option<blake3::Hasher>) -> usize {
    if let Some(digest) = digest {
        for piece in pieces {
            digest.update(piece);
        }
    }
    pieces.iter().map(Bytes::len).sum()
}

/// The right to have one more part on its way.
fn permit(parts: &Parts, bridge: &Bridge) -> Result<OwnedSemaphorePermit> {
    let permit = bridge.wait(parts.budget.clone().acquire_owned());
    permit.map_err(|error| Error::bug("the budget of parts is closed").because(error))
}

fn flatten(joined: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    joined.unwrap_or_else(|error| Err(Error::bug("an upload stopped unexpectedly").because(error)))
}

/// Stores what comes: in one request what fits into one part, else in parts, several at once.
async fn store(
    storage: Arc<dyn Storage>,
    key: String,
    most: usize,
    mut messages: mpsc::Receiver<Message>,
) -> Result<()> {
    let (first, permit) = match messages.recv().await {
        Some(Message::Part(part, permit)) => (part, permit),
        Some(Message::End(whole)) => return store_whole(storage.as_ref(), &key, whole).await,
        None => return Ok(()),
    };
    let mut sending = Sending { upload: storage.upload(&key).await?.into(), tasks: JoinSet::new(), count: 0 };
    let sent = sending.all(first, permit, messages, &key, most).await;
    if matches!(sent, Ok(true)) {
        return sending.upload.finish().await;
    }
    sending.tasks.shutdown().await;
    let aborted = sending.upload.abort().await;
    sent.and(aborted)
}

async fn store_whole(storage: &dyn Storage, key: &str, whole: Vec<Bytes>) -> Result<()> {
    match storage.create(key, whole.clone()).await? {
        Created::New => Ok(()),
        // A request may arrive twice on its way through a network: the second is told of the first.
        Created::Exists if is_stored(storage, key, &whole).await? => Ok(()),
        Created::Exists => {
            Err(Error::new(Kind::Conflict, "an object that was to be new is there already").on(key))
        }
    }
}

/// The parts of an upload that are on their way.
struct Sending {
    upload: Arc<dyn Upload>,
    tasks: JoinSet<Result<()>>,
    count: usize,
}

impl Sending {
    /// Stores all parts; `false` when the writer was dropped before its end.
    async fn all(
        &mut self,
        first: Vec<Bytes>,
        permit: OwnedSemaphorePermit,
        mut messages: mpsc::Receiver<Message>,
        key: &str,
        most: usize,
    ) -> Result<bool> {
        self.start(first, Some(permit));
        loop {
            let message = messages.recv().await;
            while let Some(done) = self.tasks.try_join_next() {
                flatten(done)?;
            }
            if self.count >= most {
                let message = format!("the object would need more than {most} parts");
                return Err(Error::usage(message).on(key).hint("set larger parts with store.part_size"));
            }
            match message {
                Some(Message::Part(part, permit)) => self.start(part, Some(permit)),
                Some(Message::End(part)) => {
                    self.start(part, None);
                    break;
                }
                None => return Ok(false),
            }
        }
        while let Some(done) = self.tasks.join_next().await {
            flatten(done)?;
        }
        Ok(true)
    }

    fn start(&mut self, part: Vec<Bytes>, permit: Option<OwnedSemaphorePermit>) {
        let (upload, number) = (self.upload.clone(), self.count);
        self.count += 1;
        self.tasks.spawn(async move {
            let sent = upload.part(number, part).await;
            drop(permit);
            sent
        });
    }
}
