//! The look-alike's listings.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::http::Request;
use super::store::Bucket;

/// As many entries as one answer has at most, as with Google.
const MOST: usize = 1000;

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One page of the objects below a prefix.
pub(super) fn objects(name: &str, bucket: &Bucket, request: &Request) -> String {
    let prefix = request.query("prefix").unwrap_or_default();
    let delimiter = request.query("delimiter").filter(|delimiter| !delimiter.is_empty());
    let most = request.query("max-keys").and_then(|most| most.parse().ok()).unwrap_or(MOST).min(MOST);
    let after = request.query("continuation-token").or(request.query("start-after")).unwrap_or_default();
    let mut xml = format!("<ListBucketResult><Name>{name}</Name><Prefix>{}</Prefix>", escape(prefix));
    let (mut groups, mut count, mut last) = (BTreeSet::new(), 0, String::new());
    let mut more = false;
    for (key, object) in bucket.objects.range(prefix.to_owned()..) {
        if !key.starts_with(prefix) {
            break;
        }
        let rest = &key[prefix.len()..];
        let group = delimiter.and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()));
        let group = group.map(|end| &key[..prefix.len() + end]);
        if key.as_str() <= after || group.is_some_and(|group| after == group || groups.contains(group)) {
            continue;
        }
        if count == most {
            more = true;
            break;
        }
        count += 1;
        last = group.unwrap_or(key).to_owned();
        match group {
            Some(group) => {
                groups.insert(group.to_owned());
            }
            None => {
                let (key, size, tag) = (escape(key), object.content.len(), escape(&object.tag()));
                let modified = object.modified.strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
                let _ = write!(
                    xml,
                    "<Contents><Key>{key}</Key><Generation>{}</Generation><LastModified>{modified}</LastModified>\
                     <ETag>{tag}</ETag><Size>{size}</Size></Contents>",
                    object.generation
                );
            }
        }
    }
    for group in &groups {
        let _ = write!(xml, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(group));
    }
    if more {
        let _ = write!(xml, "<NextContinuationToken>{}</NextContinuationToken>", escape(&last));
    }
    let _ = write!(xml, "<IsTruncated>{more}</IsTruncated></ListBucketResult>");
    xml
}

/// One page of the unfinished uploads, ordered by key and id.
pub(super) fn uploads(name: &str, bucket: &Bucket, request: &Request) -> String {
    let query = |name| request.query(name).unwrap_or_default();
    let most = request.query("max-uploads").and_then(|most| most.parse().ok()).unwrap_or(MOST).min(MOST);
    let (prefix, marker, id_marker) = (query("prefix"), query("key-marker"), query("upload-id-marker"));
    let mut found: Vec<_> =
        bucket.uploads.iter().map(|(id, upload)| (upload.key.as_str(), id.as_str(), upload)).collect();
    found.sort_by_key(|(key, id, _)| (*key, *id));
    found.retain(|(key, id, _)| {
        let later = *key > marker || (*key == marker && !id_marker.is_empty() && *id > id_marker);
        key.starts_with(prefix) && later
    });
    let mut xml = format!("<ListMultipartUploadsResult><Bucket>{name}</Bucket>");
    for (key, id, upload) in found.iter().take(most) {
        let begun = upload.begun.strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
        let _ = write!(
            xml,
            "<Upload><Key>{}</Key><UploadId>{}</UploadId><Initiated>{begun}</Initiated></Upload>",
            escape(key),
            escape(id)
        );
    }
    let more = found.len() > most;
    if let Some((key, id, _)) = found.iter().take(most).next_back().filter(|_| more) {
        let _ = write!(xml, "<NextKeyMarker>{}</NextKeyMarker>", escape(key));
        let _ = write!(xml, "<NextUploadIdMarker>{}</NextUploadIdMarker>", escape(id));
    }
    let _ = write!(xml, "<IsTruncated>{more}</IsTruncated></ListMultipartUploadsResult>");
    xml
}

/// Numbers and tags of the parts that a client lists to complete an upload.
pub(super) fn parts(xml: &[u8]) -> Option<Vec<(usize, String)>> {
    let xml = std::str::from_utf8(xml).ok()?;
    let element = |part: &str, name: &str| {
        let (_, rest) = part.split_once(&format!("<{name}>"))?;
        let (value, _) = rest.split_once(&format!("</{name}>"))?;
        Some(value.replace("&quot;", "\""))
    };
    let parts = xml.split("<Part>").skip(1);
    parts.map(|part| Some((element(part, "PartNumber")?.parse().ok()?, element(part, "ETag")?))).collect()
}
