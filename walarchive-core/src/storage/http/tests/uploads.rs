use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method};
use object_store::PutPayload;
use object_store::client::HttpError;

use super::super::{checksum, wrong_checksum};
use super::{answer, answers, ask, failed, options, run};
use crate::error::Kind;

/// The check value of the catalogue of CRCs, and the MD5 of RFC 1321.
fn known() -> (String, String) {
    let md5 =
        [0x25, 0xf9, 0xe7, 0x94, 0x32, 0x3b, 0x45, 0x38, 0x85, 0xf5, 0x18, 0x1f, 0x1b, 0x62, 0x4d, 0x0b];
    (STANDARD.encode(0xe306_9283_u32.to_be_bytes()), STANDARD.encode(md5))
}

fn put(method: Method, headers: &str) -> Result<(), HttpError> {
    let address = answers(&answer("200 OK", headers, ""));
    let payload = PutPayload::from_iter([b"1234".to_vec(), b"56789".to_vec()].map(bytes::Bytes::from));
    run(ask(options(), method, &format!("http://{address}/bucket/key"), payload)).map(drop)
}

#[test]
fn what_the_store_has_is_compared() {
    let (crc, md5) = known();
    for right in [
        String::new(),
        format!("x-goog-hash: crc32c={crc}\r\n"),
        format!("x-goog-hash: crc32c={crc},md5={md5}\r\n"),
        format!("x-goog-hash: crc32c={crc}\r\nx-goog-hash: md5={md5}\r\n"),
        format!("content-md5: {md5}\r\n"),
        "etag: \"anything\"\r\n".to_owned(),
    ] {
        put(Method::PUT, &right).unwrap();
    }
    for wrong in [
        format!("x-goog-hash: crc32c={}\r\n", STANDARD.encode([0; 4])),
        format!("x-goog-hash: crc32c={crc},md5={}\r\n", STANDARD.encode([0; 16])),
        format!("content-md5: {}\r\n", STANDARD.encode([0; 16])),
    ] {
        let error = put(Method::PUT, &wrong).unwrap_err();
        assert!(wrong_checksum(&error), "{wrong}");
        let error = failed::<()>(Err(error)).error("storing key");
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(wrong_checksum(&error) && !error.story().contains("::"), "{}", error.story());
    }
    // Answers to others are about other content.
    put(Method::POST, "content-md5: AAAA\r\n").unwrap();
}

#[test]
fn what_was_announced_is_what_is_stored() {
    let headers = |name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    };
    let sent = ["content".into()];
    let asked = headers("x-amz-checksum-sha256", "abc=");
    assert!(checksum::compare(&asked, &sent, &headers("x-amz-checksum-sha256", "abc=")).is_ok());
    assert!(checksum::compare(&asked, &sent, &HeaderMap::new()).is_ok());
    assert!(checksum::compare(&asked, &sent, &headers("x-amz-checksum-sha256", "abd=")).is_err());
    assert!(
        checksum::compare(&HeaderMap::new(), &sent, &headers("x-amz-checksum-crc64nvme", "abd=")).is_ok()
    );
    let how = headers("x-amz-checksum-type", "FULL_OBJECT");
    assert!(checksum::compare(&how, &sent, &headers("x-amz-checksum-type", "COMPOSITE")).is_ok());
}
