use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error as StoreError, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    RetryConfig,
};

use super::super::refused;
use super::{Connector, Trouble, answer, answers, options, run, trouble};
use crate::error::Kind;

pub(super) fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

pub(super) fn s3(address: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(format!("http://{address}"))
        .with_bucket_name("bucket")
        .with_region("us-east-1")
        .with_access_key_id("id")
        .with_secret_access_key("secret")
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_disable_bulk_delete(true)
        .with_retry(once())
        .with_http_connector(Connector::new(options()).unwrap())
        .build()
        .unwrap()
}

pub(super) fn azure(address: &str) -> MicrosoftAzure {
    MicrosoftAzureBuilder::new()
        .with_endpoint(format!("http://{address}/account"))
        .with_account("account")
        .with_container_name("container")
        .with_access_key("c2VjcmV0")
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(once())
        .with_http_connector(Connector::new(options()).unwrap())
        .build()
        .unwrap()
}

pub(super) fn xml(status: &str, code: &str) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words</Message></Error>");
    answer(status, "content-type: application/xml\r\n", &body)
}

async fn get(store: &dyn ObjectStore) -> StoreError {
    store.get_opts(&Path::from("key"), GetOptions::default()).await.unwrap_err()
}

async fn create(store: &dyn ObjectStore) -> StoreError {
    let payload = PutPayload::from_static(b"content");
    store.put_opts(&Path::from("key"), payload, PutMode::Create.into()).await.unwrap_err()
}

pub(super) fn of(error: &StoreError) -> Trouble {
    trouble(error).unwrap_or_else(|| panic!("{error:?}"))
}

#[test]
fn what_a_missing_object_is_and_what_not() {
    run(async {
        let error = get(&s3(&answers(&xml("404 Not Found", "NoSuchKey")))).await;
        assert!(matches!(error, StoreError::NotFound { .. }) && trouble(&error).is_none(), "{error:?}");
        let found = s3(&answers("HTTP/1.1 404 Not Found\r\n\r\n")).head(&Path::from("key")).await;
        assert!(matches!(found, Err(StoreError::NotFound { .. })), "{found:?}");
        let trouble = of(&get(&s3(&answers(&xml("404 Not Found", "NoSuchBucket")))).await);
        assert_eq!((trouble.kind, trouble.what.as_str()), (Kind::Denied, "404 NoSuchBucket: words"));
        let head = "HTTP/1.1 404 Not Found\r\nx-ms-error-code: ContainerNotFound\r\n\r\n";
        let error = azure(&answers(head)).head(&Path::from("key")).await.unwrap_err();
        assert_eq!(of(&error).kind, Kind::Denied);
        let missing = "HTTP/1.1 404 Not Found\r\nx-ms-error-code: BlobNotFound\r\n\r\n";
        let error = azure(&answers(missing)).head(&Path::from("key")).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
    });
}

#[test]
fn an_object_that_is_there_already() {
    run(async {
        let there = [
            create(&s3(&answers(&xml("412 Precondition Failed", "PreconditionFailed")))).await,
            create(&azure(&answers(&xml("409 Conflict", "BlobAlreadyExists")))).await,
            create(&azure(&answers(&xml("412 Precondition Failed", "ConditionNotMet")))).await,
        ];
        for error in there {
            assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
            assert!(trouble(&error).is_none());
        }
        for code in ["ConditionalRequestConflict", "OperationAborted"] {
            let error = create(&s3(&answers(&xml("409 Conflict", code)))).await;
            assert_eq!(of(&error).kind, Kind::Unreachable, "{code}");
        }
        let error = create(&azure(&answers(&xml("409 Conflict", "ContainerDisabled")))).await;
        assert_eq!(of(&error).kind, Kind::Denied);
    });
}

#[test]
fn a_store_that_wants_to_be_left_alone() {
    run(async {
        let date = "date: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2015 07:30:05 GMT\r\n";
        for (header, wait) in [("retry-after: 7\r\n", 7), (date, 125), ("retry-after: 99999999\r\n", 86400)] {
            let body =
                "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let error = get(&s3(&answers(&answer("503 Slow Down", header, body)))).await;
            let trouble = of(&error);
            assert_eq!(trouble.kind, Kind::Unreachable);
            assert_eq!(trouble.what, "503 SlowDown: Please reduce your request rate.");
            assert_eq!(trouble.wait, Some(Duration::from_secs(wait)));
            let told = trouble.error("reading key");
            assert_eq!(told.retry_after(), Some(Duration::from_secs(wait)));
        }
        for header in ["", "retry-after: soon\r\n"] {
            let error = get(&s3(&answers(&answer("429 Too Many Requests", header, "")))).await;
            assert_eq!(refused(&error).unwrap().retry_after, None);
            assert_eq!(of(&error).kind, Kind::Unreachable);
        }
    });
}

#[test]
fn each_reason_has_its_kind() {
    let cases = [
        ("403 Forbidden", "AccessDenied", Kind::Denied, "right to list"),
        ("403 Forbidden", "InvalidAccessKeyId", Kind::Denied, "access key"),
        ("403 Forbidden", "SignatureDoesNotMatch", Kind::Denied, "secret key"),
        ("403 Forbidden", "RequestTimeTooSkewed", Kind::Denied, "clock"),
        ("403 Forbidden", "ExpiredToken", Kind::Unreachable, "expired"),
        ("400 Bad Request", "ExpiredToken", Kind::Unreachable, "expired"),
        ("401 Unauthorized", "Other", Kind::Denied, "credentials"),
        ("400 Bad Request", "RequestTimeout", Kind::Unreachable, ""),
        ("400 Bad Request", "BadDigest", Kind::Unreachable, ""),
        ("400 Bad Request", "InvalidArgument", Kind::Usage, ""),
        ("405 Method Not Allowed", "MethodNotAllowed", Kind::Usage, "cannot"),
        ("501 Not Implemented", "NotImplemented", Kind::Usage, "cannot"),
        ("500 Internal Server Error", "InternalError", Kind::Unreachable, ""),
        ("502 Bad Gateway", "", Kind::Unreachable, ""),
        ("408 Request Timeout", "", Kind::Unreachable, ""),
    ];
    run(async {
        for (status, code, kind, hint) in cases {
            let trouble = of(&get(&s3(&answers(&xml(status, code)))).await);
            assert_eq!(trouble.kind, kind, "{status} {code}");
            assert!(trouble.hint.unwrap_or_default().contains(hint), "{status} {code}");
            assert!(trouble.what.starts_with(&format!("{} {code}", &status[..3])), "{}", trouble.what);
        }
    });
}

#[test]
fn the_wrong_region_names_the_right_one() {
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>eu-north-1</Region></Error>";
    let moved = "x-amz-bucket-region: eu-north-1\r\nlocation: http://127.0.0.1:1/\r\n";
    let two = [
        answer("400 Bad Request", "", malformed),
        answer("301 Moved Permanently", moved, "<Error><Code>PermanentRedirect</Code></Error>"),
    ];
    run(async {
        for one in two {
            let trouble = of(&get(&s3(&answers(&one))).await);
            assert_eq!(trouble.kind, Kind::Usage);
            assert!(trouble.what.contains("eu-north-1") && trouble.hint.unwrap().contains("eu-north-1"));
        }
    });
}

#[test]
fn a_long_refusal_is_cut() {
    let body = format!("<Error><Code>SlowDown</Code>{}", "x".repeat(1 << 20));
    let trouble = run(async { of(&get(&s3(&answers(&answer("503 Busy", "", &body)))).await) });
    assert_eq!(trouble.what, "503 SlowDown");
}

#[test]
fn an_upload_that_fails_after_its_answer_began() {
    use object_store::multipart::{MultipartStore, PartId};
    run(async {
        for (code, kind) in [("InternalError", Kind::Unreachable), ("RequestTimeout", Kind::Unreachable)] {
            let store = Arc::new(s3(&answers(&xml("200 OK", code))));
            let parts = vec![PartId { content_id: "1".into() }];
            let done = store.complete_multipart(&Path::from("key"), &"upload".to_owned(), parts).await;
            let trouble = of(&done.unwrap_err());
            assert_eq!((trouble.kind, trouble.what), (kind, format!("200 {code}: words")));
        }
        let body = "  \n<CompleteMultipartUploadResult><Location/><Bucket/><Key>key</Key><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
        let store = s3(&answers(&answer("200 OK", "", body)));
        let parts = vec![PartId { content_id: "1".into() }];
        let done = store.complete_multipart(&Path::from("key"), &"upload".to_owned(), parts).await;
        assert_eq!(done.unwrap().e_tag.as_deref(), Some("\"e\""));
    });
}
