//! Heads changed for other readers; the payloads stay what they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::object::Outside;
use super::proof::{Proof, kind_of};
use super::signing::Writers;
use super::{Archive, ObjectKind};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::storage::Upload;

/// What is to become of heads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rotation {
    /// Sign what nobody signed.
    pub sign: bool,
    /// Only look.
    pub dry_run: bool,
}

/// What became of an object's heads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewHeads {
    /// Bytes that were stored anew, or would be; none where the heads are as they should be.
    pub bytes: u64,
    /// Whether nobody had signed it.
    pub signed: bool,
}

/// Heads of one payload are the same in all copies.
type Heads = BTreeMap<Option<[u8; 16]>, Bytes>;

impl Archive {
    /// Gives an object, in each of its copies, a head that those can open whom this archive writes for, and nobody else. Its payload is
    /// proven as it passes.
    ///
    /// # Errors
    ///
    /// `Absent`; `Damaged` when it does not hold, or was not signed as it should be; `Key` without an identity that opens it; `Usage` where
    /// the store cannot replace objects.
    pub async fn rotate(&self, key: &str, rotation: Rotation) -> Result<NewHeads> {
        if rotation.sign {
            self.writers.may_write()?;
        }
        let kind = kind_of(key)?;
        let found = self.everywhere(key, kind, rotation).await?;
        let mut heads = Heads::new();
        for (copy, outside) in &found {
            if copy.is_as_wanted(outside, rotation).map_err(|error| error.on(key))? {
                heads.entry(outside.head.payload).or_insert_with(|| outside.head_bytes.clone());
            }
        }
        let mut done = NewHeads::default();
        for (copy, outside) in &found {
            let head = match heads.get(&outside.head.payload) {
                Some(head) => head.clone(),
                None => copy.new_head(outside, rotation).map_err(|error| error.on(key))?,
            };
            heads.insert(outside.head.payload, head.clone());
            if head == outside.head_bytes {
                continue;
            }
            done.bytes += outside.object_size;
            done.signed |= rotation.sign && !outside.binding.is_signed();
            if !rotation.dry_run {
                copy.put_head(key, outside, head).await?;
            }
        }
        Ok(done)
    }

    /// The object in all copies that have it.
    async fn everywhere(
        &self,
        key: &str,
        kind: ObjectKind,
        rotation: Rotation,
    ) -> Result<Vec<(Archive, Outside)>> {
        let looking = if rotation.sign { self.believing() } else { self.clone() };
        let (mut found, mut absent) = (Vec::new(), None);
        for (_, copy) in looking.copies() {
            match copy.look_at(key, kind).await {
                Ok(outside) => {
                    if outside.binding.is_signed() {
                        let bytes = outside.head.binding.as_deref().unwrap_or_default();
                        self.writers.check(&outside.binding, bytes).map_err(|error| error.on(key))?;
                    }
                    found.push((copy, outside));
                }
                Err(error) if error.kind() == Kind::Absent => absent = Some(error),
                Err(error) => return Err(error),
            }
        }
        match absent {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// The same archive, that takes what nobody signed.
    fn believing(&self) -> Archive {
        Archive { writers: Arc::new(self.writers.believing()), ..self.clone() }
    }

    fn is_as_wanted(&self, outside: &Outside, rotation: Rotation) -> Result<bool> {
        let lacks = rotation.sign && !outside.binding.is_signed();
        Ok(!lacks && self.cipher.is_for_readers(&outside.head_bytes)?)
    }

    fn new_head(&self, outside: &Outside, rotation: Rotation) -> Result<Bytes> {
        let binding = match rotation.sign && !outside.binding.is_signed() {
            true => {
                let commitment = self.cipher.open(&outside.head_bytes)?.commitment();
                self.writers.write(outside.binding.clone(), commitment)?
            }
            false => outside.head.binding.clone().unwrap_or_default(),
        };
        self.cipher.rewrap(&outside.head_bytes, &binding)
    }

    async fn put_head(&self, key: &str, source: &Outside, head: Bytes) -> Result<()> {
        let upload = self.storage.replace(key).await?;
        if let Err(error) = self.send_with(key, source, &head, upload.as_ref()).await {
            // The error that counts is the first one.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.finish().await?;
        let now = self.look_at(key, source.binding.kind()).await?;
        if now.head_bytes == head {
            return Ok(());
        }
        Err(Error::new(Kind::Conflict, "the store has not put the new object in the old one's place; the old one is there").on(key).hint(
            "may this account replace objects, and are there retention locks? 'walarchive copy --to URL --recipient …' makes a copy for \
             other readers",
        ))
    }

    /// Sends the payload behind another head. All of it is proven when this returns success.
    async fn send_with(&self, key: &str, source: &Outside, head: &Bytes, upload: &dyn Upload) -> Result<()> {
        let mut proof = Proof::begin(self, source, key, None).await?;
        let (old, new, step) = (source.head.len as u64, head.len() as u64, self.storage.parts().size as u64);
        let size = source.object_size - old + new;
        let mut at = 0;
        for number in 0.. {
            let end = (at + step).min(size);
            let own = head.slice(at.min(new) as usize..end.min(new) as usize);
            let payload = self.stored_part(key, at.max(new) - new + old..end.max(new) - new + old).await?;
            let taken = payload.clone();
            proof = blocking(move || proof.push(&taken).map(|()| proof)).await?;
            upload.part(number, vec![own, payload]).await?;
            at = end;
            if at == size {
                break;
            }
        }
        blocking(move || proof.finish()).await
    }
}

impl Writers {
    /// The same writer, who believes anything.
    fn believing(&self) -> Writers {
        Writers { key: self.key.clone(), trusted: Vec::new() }
    }
}
