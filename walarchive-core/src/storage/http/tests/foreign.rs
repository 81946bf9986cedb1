//! Answers of proxies and other servers, which are not believed.

use std::io::Write;

use futures::TryStreamExt;
use http::Method;
use object_store::client::HttpRequestBody;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};

use super::super::super::object;
use super::refusals::{azure, of, s3, xml};
use super::{Trouble, answer, answers, ask, failed, get, options, request, run, serve};
use crate::error::Kind;

const PAGE: &str = "<!DOCTYPE html><html><title>Log in</title></html>";
const REFUSED: &str = "<Error><Code>AccessDenied</Code></Error>";
const TAG: &str = "etag: \"e\"\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";

/// It can be tried again, and says what it was.
fn is_foreign(trouble: &Trouble) {
    assert_eq!(trouble.kind, Kind::Unreachable, "{}", trouble.what);
    let named = trouble.what.contains("(at http://127.0.0.1:");
    assert!(trouble.what.contains("not a store's") && named, "{}", trouble.what);
}

async fn create(store: &dyn ObjectStore) -> Result<(), StoreError> {
    let payload = PutPayload::from_static(b"content");
    store.put_opts(&Path::from("key"), payload, PutMode::Create.into()).await.map(drop)
}

async fn part(store: &dyn MultipartStore) -> Result<(), StoreError> {
    let payload = PutPayload::from_static(b"content");
    store.put_part(&Path::from("key"), &"upload".to_owned(), 0, payload).await.map(drop)
}

#[test]
fn an_object_is_stored_only_where_a_store_says_so() {
    run(async {
        for (status, body) in [
            ("200 OK", PAGE),
            ("200 OK", REFUSED),
            ("200 OK", " "),
            ("202 Accepted", ""),
            ("201 Created", ""),
            ("204 No Content", ""),
        ] {
            let store = s3(&answers(&answer(status, TAG, body)));
            is_foreign(&of(&create(&store).await.unwrap_err()));
            is_foreign(&of(&part(&store).await.unwrap_err()));
        }
        for (status, body) in [("201 Created", PAGE), ("200 OK", ""), ("202 Accepted", "")] {
            let store = azure(&answers(&answer(status, TAG, body)));
            is_foreign(&of(&create(&store).await.unwrap_err()));
            is_foreign(&of(&part(&store).await.unwrap_err()));
        }
        let chunked = format!("HTTP/1.1 200 OK\r\n{TAG}transfer-encoding: chunked\r\n\r\n");
        create(&s3(&answers(&format!("{chunked}0\r\n\r\n")))).await.unwrap();
        is_foreign(&of(&create(&s3(&answers(&format!("{chunked}1\r\nx\r\n0\r\n\r\n")))).await.unwrap_err()));
        create(&azure(&answers(&answer("201 Created", TAG, "")))).await.unwrap();
        part(&azure(&answers(&answer("201 Created", TAG, "")))).await.unwrap();
    });
}

#[test]
fn an_object_is_removed_only_where_a_store_says_so() {
    let delete = |store: &dyn ObjectStore| run(async { store.delete(&Path::from("key")).await });
    for body in [PAGE, REFUSED] {
        is_foreign(&of(&delete(&s3(&answers(&answer("200 OK", "", body)))).unwrap_err()));
        is_foreign(&of(&delete(&s3(&answers(&answer("404 Not Found", "", body)))).unwrap_err()));
        is_foreign(&of(&delete(&azure(&answers(&answer("202 Accepted", "", body)))).unwrap_err()));
    }
    let empty_batch = answer("202 Accepted", "content-type: multipart/mixed; boundary=b\r\n", "--b--\r\n");
    is_foreign(&of(&delete(&azure(&answers(&empty_batch))).unwrap_err()));
    delete(&s3(&answers(&answer("200 OK", "", "")))).unwrap();
    delete(&s3(&answers("HTTP/1.1 204 No Content\r\n\r\n"))).unwrap();
}

#[test]
fn an_upload_is_complete_only_where_a_store_says_so() {
    run(async {
        for body in [PAGE, "", "<CompleteMultipartUpload><ETag>\"e\"</ETag></CompleteMultipartUpload>"] {
            let store = s3(&answers(&answer("200 OK", TAG, body)));
            let parts = vec![PartId { content_id: "1".into() }];
            let done = store.complete_multipart(&Path::from("key"), &"upload".to_owned(), parts).await;
            is_foreign(&of(&done.unwrap_err()));
        }
    });
}

#[test]
fn absence_is_the_stores_own_word() {
    async fn read(store: &dyn ObjectStore) -> StoreError {
        store.get_opts(&Path::from("key"), GetOptions::default()).await.unwrap_err()
    }
    run(async {
        let code = "<Code>NoSuchKey</Code>";
        for body in ["", PAGE, "default backend - 404", REFUSED, code, "<Error/>"] {
            for headers in ["", "content-type: application/xml\r\n"] {
                let missing = answer("404 Not Found", headers, body);
                is_foreign(&of(&read(&s3(&answers(&missing))).await));
                is_foreign(&of(&read(&azure(&answers(&missing))).await));
            }
        }
        let error = read(&s3(&answers(&xml("404 Not Found", "NoSuchKey")))).await;
        assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
        let missing = answer("404 Not Found", "x-ms-error-code: BlobNotFound\r\n", "");
        let error = read(&azure(&answers(&missing))).await;
        assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
        let error = azure(&answers(&answer("404 Not Found", "", ""))).head(&Path::from("key")).await;
        is_foreign(&of(&error.unwrap_err()));
    });
}

#[test]
fn a_listing_is_one() {
    async fn list(store: &dyn ObjectStore) -> Result<Vec<ObjectMeta>, StoreError> {
        store.list(None).try_collect().await
    }
    run(async {
        let lost = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        for body in ["", PAGE, REFUSED, "<EnumerationResultsX/>", lost] {
            let address = answers(&answer("200 OK", "", body));
            is_foreign(&of(&list(&s3(&address)).await.unwrap_err()));
            is_foreign(&of(&list(&azure(&address)).await.unwrap_err()));
            let url = format!("http://{address}/bucket?uploads");
            is_foreign(&failed(ask(options(), Method::GET, &url, HttpRequestBody::empty()).await));
        }
        let empty = answers(&answer("200 OK", "", "<?xml version=\"1.0\"?>\n<ListBucketResult/>"));
        assert_eq!(list(&s3(&empty)).await.unwrap(), []);
        let empty = "\u{feff}<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
        assert_eq!(list(&azure(&answers(&answer("200 OK", "", empty)))).await.unwrap(), []);
    });
}

#[test]
fn a_listing_without_end_is_cut_off() {
    let address = serve(|mut stream| {
        request(&mut stream);
        let begin = "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\n\r\n<ListBucketResult>";
        let _ = stream.write_all(begin.as_bytes());
        // The client hangs up.
        while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
    });
    let error = run(async { s3(&address).list(None).try_collect::<Vec<_>>().await }).unwrap_err();
    is_foreign(&of(&error));
}

#[test]
fn what_a_stranger_says_cannot_reach_a_terminal() {
    let body = format!("\u{1b}]0;owned\u{7}\r\n{}", "x".repeat(5000));
    let strange = |what: &str| what.contains(|c: char| c.is_control()) || what.len() > 600;
    let trouble = failed(run(get(options(), &answers(&answer("404 Not Found", "", &body)))));
    assert!(!strange(&trouble.what) && trouble.what.contains("]0;owned"), "{}", trouble.what);
    let refused = format!("<Error><Code>SlowDown</Code><Message>{body}</Message></Error>");
    let trouble = failed(run(get(options(), &answers(&answer("503 Busy", "", &refused)))));
    assert!(!strange(&trouble.what), "{}", trouble.what);
    // What object_store puts into its messages.
    for status in ["404 Not Found", "412 Precondition Failed", "409 Conflict"] {
        let body = format!("<Error><Code>NoSuchKey</Code><Message>{body}</Message></Error>");
        let body = if status.starts_with("409") { body.replace("NoSuchKey", "") } else { body };
        let (_, seen) = run(get(options(), &answers(&answer(status, "", &body)))).unwrap();
        assert!(!strange(std::str::from_utf8(&seen).unwrap()), "{status}");
    }
}

#[test]
fn a_name_that_is_none_is_named_and_no_mistake_of_ours() {
    for (key, shown) in
        [("x&#10;y", "x\\ny"), ("a//b", "a//b"), ("a/./b", "a/./b"), ("&#27;[2J", "\\u{1b}[2J")]
    {
        let body = format!(
            "<ListBucketResult><Contents><Key>{key}</Key><Size>1</Size>\
             <LastModified>2026-01-02T03:04:05Z</LastModified></Contents></ListBucketResult>"
        );
        let store = s3(&answers(&answer("200 OK", "", &body)));
        let error = run(async { store.list(None).try_collect::<Vec<_>>().await }).unwrap_err();
        let error = object::failed("listing", "main", error);
        assert_eq!(error.kind(), Kind::Damaged, "{}", error.story());
        let story = error.story();
        assert!(story.contains(shown) && story.contains("provider's own tools"), "{story}");
        assert!(!story.contains(char::is_control), "{story:?}");
    }
}
