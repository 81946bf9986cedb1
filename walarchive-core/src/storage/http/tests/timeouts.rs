use std::io::{Read, Write};
use std::time::{Duration, Instant};

use http::Method;
use object_store::PutPayload;
use object_store::client::HttpErrorKind;

use super::{answer, answers, ask, failed, get, hasty, head, length, options, request, run, serve};
use crate::error::Kind;

fn forever() {
    std::thread::sleep(Duration::from_secs(30));
}

fn url(address: &str) -> String {
    format!("http://{address}/bucket/key")
}

#[test]
fn a_store_that_never_answers() {
    let address = serve(|mut stream| {
        request(&mut stream);
        forever();
    });
    let begin = Instant::now();
    let error = run(get(hasty(), &address)).unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Timeout);
    let trouble = failed::<()>(Err(error));
    assert_eq!(trouble.kind, Kind::Unreachable);
    assert!(trouble.what.contains("no answer within 300ms"), "{}", trouble.what);
    // With what connecting may take: a request without a body does not say when it was sent.
    assert!(begin.elapsed() < Duration::from_millis(2000), "{:?}", begin.elapsed());
}

#[test]
fn a_store_that_takes_an_object_and_never_answers() {
    let address = serve(|mut stream| {
        request(&mut stream);
        forever();
    });
    let begin = Instant::now();
    let result = run(ask(hasty(), Method::PUT, &url(&address), vec![7; 100_000]));
    let trouble = failed(result);
    assert!(trouble.what.contains("no answer within 300ms"), "{}", trouble.what);
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
}

#[test]
fn a_store_that_does_not_take_what_is_sent() {
    let address = serve(|mut stream| {
        head(&mut stream);
        forever();
        drop(stream);
    });
    // More than what fits into the buffers of both sides.
    let error = run(ask(hasty(), Method::PUT, &url(&address), vec![7; 64 << 20])).unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Timeout);
    let trouble = failed::<()>(Err(error));
    assert!(trouble.what.contains("no byte of the request was taken for 200ms"), "{}", trouble.what);
}

#[test]
fn an_answer_that_stalls() {
    let address = serve(|mut stream| {
        request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
        forever();
    });
    let error = run(get(hasty(), &address)).unwrap_err();
    assert_eq!(error.kind(), HttpErrorKind::Timeout);
    let trouble = failed::<()>(Err(error));
    assert!(trouble.what.contains("no byte of the answer came for 200ms"), "{}", trouble.what);
    assert!(trouble.what.ends_with(&format!("(at http://{address})")), "{}", trouble.what);
}

#[test]
fn a_refusal_that_stalls_is_one_all_the_same() {
    let address = serve(|mut stream| {
        request(&mut stream);
        stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
        forever();
    });
    let trouble = failed(run(get(hasty(), &address)));
    assert_eq!((trouble.kind, trouble.what.as_str()), (Kind::Unreachable, "503 Service Unavailable"));
}

#[test]
fn half_an_answer_does_not_prove_absence() {
    for body in ["", "<Error><Code>NoSuch"] {
        let address = serve(move |mut stream| {
            request(&mut stream);
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 100\r\n\r\n").unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        });
        assert_eq!(failed(run(get(options(), &address))).kind, Kind::Unreachable);
    }
}

#[test]
fn slow_is_not_stalled() {
    let address = serve(|mut stream| {
        let head = head(&mut stream).unwrap();
        let mut left = length(&head);
        // Far slower than any timeout as a whole.
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            let portion = left.min(buffer.len());
            stream.read_exact(&mut buffer[..portion]).unwrap();
            left -= portion;
            std::thread::sleep(Duration::from_millis(100));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n").unwrap();
        for _ in 0..25 {
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(b"x").unwrap();
        }
    });
    let begin = Instant::now();
    // Buffers of both sides hold several megabytes, which the store still has to take when all is sent.
    let limit = Duration::from_secs(2);
    let limits = super::HttpOptions { first_byte_timeout: limit, stall_timeout: limit, ..options() };
    let payload = PutPayload::from_iter([vec![1; 32 << 20], vec![], vec![2; 3]].map(bytes::Bytes::from));
    let (status, body) = run(ask(limits, Method::POST, &url(&address), payload)).unwrap();
    assert_eq!((status.as_u16(), body.len()), (200, 25));
    assert!(begin.elapsed() > Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_reader_who_takes_his_time_is_no_stall() {
    let address = answers(&answer("200 OK", "", &"x".repeat(4 << 20)));
    run(async {
        let limits = super::HttpOptions { stall_timeout: Duration::from_secs(1), ..options() };
        let client = super::Connector::new(limits).unwrap().client();
        let mut request = object_store::client::HttpRequest::new(Vec::new().into());
        *request.uri_mut() = url(&address).parse().unwrap();
        let answer = client.execute(request).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(answer.into_body().bytes().await.unwrap().len(), 4 << 20);
    });
}

#[test]
fn the_length_is_sent_and_the_bytes_arrive() {
    let address = serve(|mut stream| {
        let (head, body) = request(&mut stream).unwrap();
        assert!(!head.contains("transfer-encoding"), "{head}");
        let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
        stream.write_all(answer("200 OK", "", &format!("{} {sum}", body.len())).as_bytes()).unwrap();
    });
    let payload = PutPayload::from_iter(
        [vec![1; 40_000], vec![], vec![2; 3], vec![3; 16 << 10]].map(bytes::Bytes::from),
    );
    let (_, body) = run(ask(options(), Method::POST, &url(&address), payload)).unwrap();
    assert_eq!(body, format!("{} {}", 40_003 + (16 << 10), 40_006 + 3 * (16 << 10)));
}
