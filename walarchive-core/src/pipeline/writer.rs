//! Content made by a blocking worker, to a large object in storage.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cipher::Seal;
use crate::crossing::Bridge;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Bytes of one part of an upload. Every part but the last has this length (cloud stores want equal parts of
/// at least 5 MiB, at most 10,000 of them).
pub const PART_SIZE: usize = 8 << 20;

enum Message {
    Part(Vec<Bytes>),
    End(Vec<Bytes>),
}

/// Seals content as it comes and sends it on, one part being stored while the next is made. Dropped without
/// [`finish`](ObjectWriter::finish), it leaves no object.
///
/// Memory: three parts.
pub struct ObjectWriter {
    seal: Box<dyn Seal>,
    pieces: Vec<Bytes>,
    held: usize,
    stored: u64,
    parts: mpsc::Sender<Message>,
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
        let (parts, receiver) = mpsc::channel(1);
        ObjectWriter {
            seal,
            held: head.len(),
            stored: 0,
            pieces: vec![head],
            parts,
            upload: bridge.spawn(store(storage, key, receiver)),
            bridge: bridge.clone(),
        }
    }

    /// Takes the next content.
    pub fn write(&mut self, content: &[u8]) -> Result<()> {
        let before = self.pieces.len();
        self.seal.push(content, &mut self.pieces)?;
        self.held += self.pieces.iter().skip(before).map(Bytes::len).sum::<usize>();
        while self.held >= PART_SIZE {
            let part = self.take(PART_SIZE);
            self.send(Message::Part(part))?;
        }
        Ok(())
    }

    /// Ends the object: it is visible and durable then. Gives its stored size.
    pub fn finish(mut self) -> Result<u64> {
        let before = self.pieces.len();
        let seal = self.seal;
        seal.finish(&mut self.pieces)?;
        self.held += self.pieces.iter().skip(before).map(Bytes::len).sum::<usize>();
        let stored = self.stored + self.held as u64;
        let rest = self.pieces;
        let sent = self.parts.blocking_send(Message::End(rest));
        let ended = flatten(self.bridge.wait(self.upload));
        ended?;
        sent.map_err(|_| Error::bug("an upload ended before its last part"))?;
        Ok(stored)
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

    fn send(&mut self, message: Message) -> Result<()> {
        if self.parts.blocking_send(message).is_ok() {
            return Ok(());
        }
        // The upload failed; its own error says why.
        match flatten(self.bridge.wait(&mut self.upload)) {
            Err(error) => Err(error),
            Ok(()) => Err(Error::bug("an upload ended before its last part")),
        }
    }
}

fn flatten(joined: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    joined.unwrap_or_else(|error| Err(Error::bug("an upload stopped unexpectedly").because(error)))
}

async fn store(storage: Arc<dyn Storage>, key: String, mut parts: mpsc::Receiver<Message>) -> Result<()> {
    let mut upload = storage.upload(&key).await?;
    loop {
        match parts.recv().await {
            Some(Message::Part(part)) => {
                if let Err(error) = upload.write(part).await {
                    let _ = upload.abort().await;
                    return Err(error);
                }
            }
            Some(Message::End(part)) => {
                if let Err(error) = upload.write(part).await {
                    let _ = upload.abort().await;
                    return Err(error);
                }
                return upload.finish().await;
            }
            None => return upload.abort().await,
        }
    }
}
