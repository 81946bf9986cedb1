//! Google's XML API: which request means what.

use std::ops::Range;
use std::sync::Mutex;

use jiff::Timestamp;

use super::http::{Answer, Request};
use super::store::{NO_KEY, Object, Refusal, Store};
use super::{list, lock};

const METHOD: Refusal = (501, "NotImplemented", "This look-alike does not know the request.");
const RANGE: Refusal = (416, "InvalidRange", "The requested range cannot be satisfied.");
const OWNED: Refusal =
    (409, "BucketAlreadyOwnedByYou", "Your previous request to create the bucket succeeded.");
const ARGUMENT: Refusal = (400, "InvalidArgument", "An argument of the request is not understood.");

pub(super) fn answer(store: &Mutex<Store>, request: &Request) -> Answer {
    let (bucket, key) = request.path.split_once('/').unwrap_or((&request.path, ""));
    // One request at a time: each is atomic.
    let store = &mut lock(store);
    let done = if key.is_empty() {
        on_bucket(store, request, bucket)
    } else {
        on_object(store, request, bucket, key)
    };
    done.unwrap_or_else(|(status, code, message)| {
        let xml = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        xml_answer(status, &xml)
    })
}

fn xml_answer(status: u16, xml: &str) -> Answer {
    let text = format!("<?xml version='1.0' encoding='UTF-8'?>{xml}");
    Answer::new(status, text).with("content-type", "application/xml; charset=UTF-8")
}

fn on_bucket(store: &mut Store, request: &Request, name: &str) -> Result<Answer, Refusal> {
    match request.method.as_str() {
        "PUT" if store.buckets.contains_key(name) => Err(OWNED),
        "PUT" => {
            store.buckets.insert(name.to_owned(), Default::default());
            Ok(Answer::new(200, ""))
        }
        "HEAD" => store.bucket(name).map(|_| Answer::new(200, "")),
        "GET" if request.query("uploads").is_some() => {
            Ok(xml_answer(200, &list::uploads(name, store.bucket(name)?, request)))
        }
        "GET" if request.query("list-type") == Some("2") => {
            Ok(xml_answer(200, &list::objects(name, store.bucket(name)?, request)))
        }
        _ => Err(METHOD),
    }
}

fn on_object(store: &mut Store, request: &Request, bucket: &str, key: &str) -> Result<Answer, Refusal> {
    let wanted = request.header("x-goog-if-generation-match");
    let promised = request.header("x-goog-hash");
    let body = request.body.clone();
    match (request.method.as_str(), request.query("uploadId")) {
        ("PUT", Some(id)) => {
            let number = request.query("partNumber").and_then(|number| number.parse().ok());
            let number = number.filter(|number| (1..=10_000).contains(number)).ok_or(ARGUMENT)?;
            let tag = store.part(bucket, (key, id), number, body.clone(), promised)?;
            Ok(Answer::new(200, "").with("etag", tag).with("x-goog-hash", super::store::checksum(&body)))
        }
        ("POST", Some(id)) => {
            let listed = list::parts(&request.body).ok_or(ARGUMENT)?;
            let object = store.complete(bucket, (key, id), &listed, wanted)?;
            let xml = format!(
                "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{}</Key><ETag>{}</ETag>\
                 </CompleteMultipartUploadResult>",
                list::escape(key),
                list::escape(&object.tag())
            );
            Ok(described(xml_answer(200, &xml), &object))
        }
        ("DELETE", Some(id)) => store.give_up(bucket, (key, id)).map(|()| Answer::new(204, "")),
        ("POST", None) if request.query("uploads").is_some() => {
            let id = store.begin(bucket, key)?;
            let xml = format!(
                "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>\
                 </InitiateMultipartUploadResult>",
                list::escape(key)
            );
            Ok(xml_answer(200, &xml))
        }
        ("PUT", None) if request.header("x-goog-copy-source").is_none() => {
            let object = store.put(bucket, key, body, wanted, promised)?;
            Ok(described(Answer::new(200, ""), &object))
        }
        ("GET" | "HEAD", None) => {
            let object = store.bucket(bucket)?.objects.get(key).ok_or(NO_KEY)?;
            read(object, request.header("range"))
        }
        ("DELETE", None) => {
            store.bucket(bucket)?.objects.remove(key).ok_or(NO_KEY)?;
            Ok(Answer::new(204, ""))
        }
        _ => Err(METHOD),
    }
}

fn read(object: &Object, range: Option<&str>) -> Result<Answer, Refusal> {
    let size = object.content.len() as u64;
    let answer = match range {
        None => Answer::new(200, object.content.clone()),
        Some(range) => {
            let Range { start, end } = bounds(range, size).ok_or(RANGE)?;
            let part = object.content.slice(start as usize..end as usize);
            Answer::new(206, part).with("content-range", format!("bytes {start}-{}/{size}", end - 1))
        }
    };
    Ok(described(answer, object).with("content-type", "application/octet-stream"))
}

/// The bytes that a `Range` header means; none when the object has none of them.
fn bounds(range: &str, size: u64) -> Option<Range<u64>> {
    let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (start, end) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (start, "") => start.parse().ok()?..size,
        (start, end) => start.parse().ok()?..end.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    (range.start < range.end).then_some(range)
}

fn described(answer: Answer, object: &Object) -> Answer {
    answer
        .with("etag", object.tag())
        .with("last-modified", http_date(object.modified))
        .with("x-goog-generation", object.generation.to_string())
        .with("x-goog-metageneration", "1")
        .with("x-goog-hash", object.checksum())
        .with("x-goog-stored-content-length", object.content.len().to_string())
}

fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_understood() {
        for (range, bounds_of_100) in [
            ("bytes=0-99", Some(0..100)),
            ("bytes=0-0", Some(0..1)),
            ("bytes=99-", Some(99..100)),
            ("bytes=90-1000", Some(90..100)),
            ("bytes=5-18446744073709551615", Some(5..100)),
            ("bytes=-10", Some(90..100)),
            ("bytes=100-101", None),
            ("bytes=100-", None),
            ("bytes=7-5", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(bounds(range, 100), bounds_of_100, "{range}");
        }
        assert_eq!(bounds("bytes=0-5", 0), None);
    }
}
