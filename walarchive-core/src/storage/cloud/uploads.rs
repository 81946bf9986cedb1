//! The uploads of a bucket that were begun and not ended: S3's list of multipart uploads, which Google's store knows too.
#![cfg_attr(not(any(feature = "s3", feature = "gcs")), allow(unused))]

use std::sync::Arc;
#[cfg(feature = "s3")]
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use jiff::Timestamp;
#[cfg(feature = "s3")]
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
#[cfg(feature = "gcs")]
use object_store::gcp::GcpCredentialProvider;
#[cfg(feature = "s3")]
use object_store::path::Path;
#[cfg(feature = "s3")]
use object_store::signer::{SignedUrlOptions, Signer};
use serde::Deserialize;

use super::super::Unfinished;
use super::super::object::{Root, failed};
use super::listing::{Seen, repeats};
use crate::error::{Error, Kind, Result};

const DOING: &str = "listing the unfinished uploads of";
/// How long a signed request may be on its way.
#[cfg(feature = "s3")]
const SIGNED_FOR: Duration = Duration::from_secs(15 * 60);

/// Asks for the unfinished uploads of one bucket.
#[derive(Debug)]
pub(super) struct Uploads {
    http: HttpClient,
    access: Access,
}

/// How requests prove who sends them.
#[derive(Debug)]
enum Access {
    #[cfg(feature = "s3")]
    S3(Arc<AmazonS3>),
    #[cfg(feature = "gcs")]
    Google { url: String, credentials: GcpCredentialProvider },
    /// Azure knows none.
    #[cfg(not(any(feature = "s3", feature = "gcs")))]
    Nobody,
}

type Query = Vec<(&'static str, String)>;

impl Uploads {
    #[cfg(feature = "s3")]
    pub(super) fn of_s3(http: HttpClient, client: Arc<AmazonS3>) -> Uploads {
        Uploads { http, access: Access::S3(client) }
    }

    /// `url` is the bucket's, with a slash at its end.
    #[cfg(feature = "gcs")]
    pub(super) fn of_google(http: HttpClient, url: String, credentials: GcpCredentialProvider) -> Uploads {
        Uploads { http, access: Access::Google { url, credentials } }
    }

    /// All unfinished uploads below `root`.
    pub(super) fn list(self: Arc<Self>, root: Root) -> BoxStream<'static, Result<Unfinished>> {
        let begin = (Some(Query::new()), Seen::default());
        let pages = stream::try_unfold(begin, move |(from, mut seen)| {
            let (uploads, root) = (self.clone(), root.clone());
            async move {
                let Some(from) = from else { return Ok(None) };
                let page = uploads.page(&root, &from).await?;
                let next = page.next();
                if next.as_ref().is_some_and(|next| !seen.first(next)) {
                    return Err(repeats(DOING, "", "the next page"));
                }
                let found = page.below(&root, &mut seen)?;
                Ok(Some((stream::iter(found.into_iter().map(Ok)), (next, seen))))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn page(&self, root: &Root, from: &Query) -> Result<Page> {
        let mut query: Query = vec![("uploads", String::new())];
        if !root.0.is_empty() {
            query.push(("prefix", format!("{}/", root.0)));
        }
        query.extend(from.iter().cloned());
        let text = self.ask(query).await.map_err(|source| failed(DOING, "", source))?;
        parse(&text)
    }

    async fn ask(&self, query: Query) -> Result<Bytes, object_store::Error> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let url: String = match &self.access {
            #[cfg(feature = "s3")]
            Access::S3(client) => {
                let options = SignedUrlOptions::new().with_query(query);
                let path = Path::default();
                client.signed_url_opts(http::Method::GET, &path, SIGNED_FOR, &options).await?.to_string()
            }
            #[cfg(feature = "gcs")]
            Access::Google { url, credentials } => {
                let bearer = credentials.get_credential().await?.bearer.clone();
                if !bearer.is_empty() {
                    let mut value = http::HeaderValue::try_from(format!("Bearer {bearer}")).map_err(wrong)?;
                    value.set_sensitive(true);
                    request.headers_mut().insert(http::header::AUTHORIZATION, value);
                }
                format!("{url}?{}", joined(&query))
            }
            #[cfg(not(any(feature = "s3", feature = "gcs")))]
            Access::Nobody => return Err(wrong("this store has no such list")),
        };
        *request.uri_mut() = url.parse().map_err(wrong)?;
        let answer = self.http.execute(request).await.map_err(wrong)?;
        let status = answer.status();
        if !status.is_success() {
            let path = "the list of unfinished uploads".to_owned();
            let source = format!("the store answered {status}").into();
            return Err(match status.as_u16() {
                401 => object_store::Error::Unauthenticated { path, source },
                403 => object_store::Error::PermissionDenied { path, source },
                405 | 501 => object_store::Error::NotSupported { source },
                _ => wrong(source),
            });
        }
        let body = answer.into_body().collect().await.map_err(wrong)?;
        Ok(body.to_bytes())
    }
}

fn wrong(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "unfinished uploads", source: source.into() }
}

/// A query, with everything that is not plain as a percent code.
#[cfg(feature = "gcs")]
fn joined(query: &Query) -> String {
    let encoded = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let code = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        text.bytes().map(code).collect()
    };
    let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Page {
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
    #[serde(rename = "Upload")]
    uploads: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    key: String,
    upload_id: String,
    initiated: String,
}

fn parse(text: &[u8]) -> Result<Page> {
    quick_xml::de::from_reader(text).map_err(|error| {
        Error::new(Kind::Unreachable, format!("{DOING} the archive: the answer cannot be read"))
            .because(error)
    })
}

impl Page {
    /// The archive's uploads; that of a key and id which an earlier page named is an error.
    fn below(self, root: &Root, seen: &mut Seen) -> Result<Vec<Unfinished>> {
        let mut found = Vec::with_capacity(self.uploads.len());
        for upload in self.uploads {
            if !seen.first((&upload.key, &upload.upload_id)) {
                return Err(repeats(DOING, "", &format!("an upload of {:?}", upload.key)));
            }
            found.extend(upload.below(root));
        }
        Ok(found)
    }

    /// Where the next page begins.
    fn next(&self) -> Option<Query> {
        self.is_truncated.then(|| {
            vec![
                ("key-marker", self.next_key_marker.clone()),
                ("upload-id-marker", self.next_upload_id_marker.clone()),
            ]
        })
    }
}

impl Listed {
    /// The upload, if it is one of the archive's.
    fn below(self, root: &Root) -> Option<Unfinished> {
        // Without a time, as if it were new: it is left alone.
        let since = self.initiated.parse().unwrap_or(Timestamp::MAX);
        Some(Unfinished { key: root.key(&self.key)?, id: self.upload_id, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_and_followed() {
        let text = br#"<?xml version="1.0" encoding="UTF-8"?>
<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Bucket>b</Bucket><KeyMarker/><UploadIdMarker></UploadIdMarker><Prefix>a/</Prefix>
  <NextKeyMarker>a/x&amp;y</NextKeyMarker><NextUploadIdMarker>2~z</NextUploadIdMarker>
  <MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>
  <Upload><Key>a/main/7/k</Key><UploadId>u1</UploadId><Initiator><ID>i</ID></Initiator>
    <StorageClass>STANDARD</StorageClass><Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>
  <Upload><Key>ab/k</Key><UploadId>u2</UploadId><Initiated>2026-01-02T03:04:05Z</Initiated></Upload>
  <Upload><Key>a/k</Key><UploadId>u3</UploadId><Initiated>yesterday</Initiated></Upload>
</ListMultipartUploadsResult>"#;
        let page = parse(text).unwrap();
        let next = page.next().unwrap();
        assert_eq!(joined(&next), "key-marker=a%2Fx%26y&upload-id-marker=2~z");
        let root = Root("a".to_owned());
        let mut seen = Seen::default();
        let found = page.below(&root, &mut seen).unwrap();
        let again = parse(text).unwrap().below(&root, &mut seen).unwrap_err();
        assert!(again.kind() == Kind::Unreachable && again.story().contains("repeats itself"));
        let since = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Unfinished { key: "main/7/k".to_owned(), id: "u1".to_owned(), since });
        assert_eq!((found[1].key.as_str(), found[1].since), ("k", Timestamp::MAX));
    }

    #[test]
    fn an_empty_list_is_one() {
        for text in [
            "<ListMultipartUploadsResult/>",
            "<ListMultipartUploadsResult><Prefix/></ListMultipartUploadsResult>",
        ] {
            let page = parse(text.as_bytes()).unwrap();
            assert!(page.uploads.is_empty() && page.next().is_none());
        }
        assert_eq!(parse(b"<html").unwrap_err().kind(), Kind::Unreachable);
    }
}
