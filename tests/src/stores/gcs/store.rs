//! What the look-alike keeps.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use jiff::Timestamp;

/// Parts but the last are at least this long, as Google demands it.
const LEAST_PART: usize = 5 << 20;

/// Why the store refuses: a status, Google's code for it, and what is wrong.
pub(super) type Refusal = (u16, &'static str, &'static str);

pub(super) const NO_BUCKET: Refusal = (404, "NoSuchBucket", "The specified bucket does not exist.");
pub(super) const NO_KEY: Refusal = (404, "NoSuchKey", "The specified key does not exist.");
const NO_UPLOAD: Refusal = (404, "NoSuchUpload", "The requested upload was not found.");
const CONDITION: Refusal =
    (412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.");
const DIGEST: Refusal = (400, "BadDigest", "The checksum does not match what was received.");
const BAD_PART: Refusal = (400, "InvalidPart", "One or more of the specified parts could not be found.");
const ORDER: Refusal = (400, "InvalidPartOrder", "The list of parts was not in ascending order.");
const SMALL: Refusal = (400, "EntityTooSmall", "A part other than the last is smaller than 5 MiB.");

#[derive(Debug, Default)]
pub(super) struct Store {
    pub buckets: BTreeMap<String, Bucket>,
    generation: u64,
}

#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub objects: BTreeMap<String, Object>,
    pub uploads: BTreeMap<String, Upload>,
}

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub content: Bytes,
    pub generation: u64,
    pub modified: Timestamp,
}

#[derive(Debug)]
pub(super) struct Upload {
    pub key: String,
    pub begun: Timestamp,
    parts: BTreeMap<usize, Bytes>,
}

impl Object {
    pub fn tag(&self) -> String {
        format!("\"{:016x}\"", self.generation)
    }

    pub fn checksum(&self) -> String {
        checksum(&self.content)
    }
}

/// As `x-goog-hash` has it.
pub(super) fn checksum(content: &[u8]) -> String {
    format!("crc32c={}", BASE64_STANDARD.encode(crc32c::crc32c(content).to_be_bytes()))
}

/// A part's tag.
pub(super) fn tag(content: &[u8]) -> String {
    format!("\"{:08x}-{:x}\"", crc32c::crc32c(content), content.len())
}

fn verify(content: &[u8], promised: Option<&str>) -> Result<(), Refusal> {
    let wrong = |promised: &str| promised.starts_with("crc32c=") && promised != checksum(content);
    if promised.is_some_and(wrong) { Err(DIGEST) } else { Ok(()) }
}

impl Store {
    pub fn bucket(&mut self, name: &str) -> Result<&mut Bucket, Refusal> {
        self.buckets.get_mut(name).ok_or(NO_BUCKET)
    }

    /// Stores an object if the one that is there has the generation `wanted`; 0 is none.
    pub fn put(
        &mut self,
        bucket: &str,
        key: &str,
        content: Bytes,
        wanted: Option<&str>,
        promised: Option<&str>,
    ) -> Result<Object, Refusal> {
        verify(&content, promised)?;
        let generation = self.next();
        let objects = &mut self.bucket(bucket)?.objects;
        let found = objects.get(key).map_or(0, |object| object.generation);
        if wanted.is_some_and(|wanted| wanted.parse() != Ok(found)) {
            return Err(CONDITION);
        }
        let object = Object { content, generation, modified: Timestamp::now() };
        objects.insert(key.to_owned(), object.clone());
        Ok(object)
    }

    fn next(&mut self) -> u64 {
        // As long as Google's, which are microseconds.
        self.generation = self.generation.max(1_700_000_000_000_000) + 1;
        self.generation
    }

    pub fn begin(&mut self, bucket: &str, key: &str) -> Result<String, Refusal> {
        let id = format!("upload+{:x}/=", self.next());
        let upload = Upload { key: key.to_owned(), begun: Timestamp::now(), parts: BTreeMap::new() };
        self.bucket(bucket)?.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    pub fn part(
        &mut self,
        bucket: &str,
        (key, id): (&str, &str),
        number: usize,
        content: Bytes,
        promised: Option<&str>,
    ) -> Result<String, Refusal> {
        verify(&content, promised)?;
        let upload = self.bucket(bucket)?.uploads.get_mut(id).filter(|upload| upload.key == key);
        let tag = tag(&content);
        upload.ok_or(NO_UPLOAD)?.parts.insert(number, content);
        Ok(tag)
    }

    /// Makes the object of the parts that are listed, as number and tag.
    pub fn complete(
        &mut self,
        bucket: &str,
        (key, id): (&str, &str),
        listed: &[(usize, String)],
        wanted: Option<&str>,
    ) -> Result<Object, Refusal> {
        let uploads = &self.bucket(bucket)?.uploads;
        let upload = uploads.get(id).filter(|upload| upload.key == key).ok_or(NO_UPLOAD)?;
        if !listed.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(ORDER);
        }
        let mut parts = Vec::new();
        for (number, known) in listed {
            let part = upload.parts.get(number).filter(|part| tag(part) == *known);
            parts.push(part.ok_or(BAD_PART)?.clone());
        }
        let (_, all_but_last) = parts.split_last().ok_or(BAD_PART)?;
        if all_but_last.iter().any(|part| part.len() < LEAST_PART) {
            return Err(SMALL);
        }
        let object = self.put(bucket, key, parts.concat().into(), wanted, None)?;
        self.bucket(bucket)?.uploads.remove(id);
        Ok(object)
    }

    pub fn give_up(&mut self, bucket: &str, (key, id): (&str, &str)) -> Result<(), Refusal> {
        let uploads = &mut self.bucket(bucket)?.uploads;
        if uploads.get(id).is_none_or(|upload| upload.key != key) {
            return Err(NO_UPLOAD);
        }
        uploads.remove(id);
        Ok(())
    }
}
