//! A server with a script, and what becomes of requests to it.

mod foreign;
mod network;
mod refusals;
mod timeouts;
mod tls;
mod uploads;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use object_store::client::{HttpError, HttpRequest, HttpRequestBody};

use super::trouble::{Trouble, trouble};
use super::{Connector, HttpOptions};

/// Runs a test on a runtime of its own.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test)
}

/// Options with timeouts that a loaded machine keeps.
pub(super) fn options() -> HttpOptions {
    HttpOptions {
        ca_file: None,
        proxy: None,
        allow_http: true,
        connect_timeout: Duration::from_secs(10),
        first_byte_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
    }
}

/// Options with short timeouts: 500 ms for connecting, 300 ms for the first byte, 200 ms for stalls.
pub(super) fn hasty() -> HttpOptions {
    HttpOptions {
        connect_timeout: Duration::from_millis(500),
        first_byte_timeout: Duration::from_millis(300),
        stall_timeout: Duration::from_millis(200),
        ..options()
    }
}

/// A server on a free port below those that the system gives to clients; each connection is `handle`d on a thread.
pub(super) fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let handle = Arc::new(handle);
    let listener = loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 20_000 + u16::from_le_bytes(random) % 12_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            break listener;
        }
    };
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handle = handle.clone();
            std::thread::spawn(move || handle(stream));
        }
    });
    address
}

/// A server that reads each request and gives the same answer.
pub(super) fn answers(answer: &str) -> String {
    let answer = answer.to_owned();
    serve(move |mut stream| {
        while request(&mut stream).is_some() {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

/// An answer with a body.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// Reads the head of a request.
pub(super) fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap().to_lowercase())
}

/// How long the body of a request is, by its head.
pub(super) fn length(head: &str) -> usize {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(0, |length| length.trim().parse().unwrap())
}

/// Reads a request.
pub(super) fn request(stream: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let head = head(stream)?;
    let mut body = vec![0; length(&head)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Sends a request and reads the answer, its body too.
pub(super) async fn ask(
    options: HttpOptions,
    method: Method,
    url: &str,
    body: impl Into<HttpRequestBody>,
) -> Result<(http::StatusCode, Bytes), HttpError> {
    let client = Connector::new(options).unwrap().client();
    let mut request = HttpRequest::new(body.into());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().unwrap();
    let (head, body) = client.execute(request).await?.into_parts();
    Ok((head.status, body.bytes().await?))
}

/// Asks for an object with GET.
pub(super) async fn get(options: HttpOptions, address: &str) -> Result<(http::StatusCode, Bytes), HttpError> {
    ask(options, Method::GET, &format!("http://{address}/bucket/key"), HttpRequestBody::empty()).await
}

/// What comes of it, when nothing good does.
pub(super) fn failed<T: std::fmt::Debug>(result: Result<T, HttpError>) -> Trouble {
    trouble(&result.unwrap_err()).unwrap()
}
