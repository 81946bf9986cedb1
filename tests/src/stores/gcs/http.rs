//! As much HTTP/1.1 as the look-alike needs.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

/// What a client asked.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    /// Decoded, without the leading `/`.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What the server answers. Its length may differ from its body's, for HEAD.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The next request of a connection; none when the client closed it.
pub(super) fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().ok_or_else(|| bad("no method"))?.to_owned();
    let target = words.next().ok_or_else(|| bad("no target"))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = decode(path.trim_start_matches('/'));
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(&value.replace('+', " ")))
    });
    let query = query.collect();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(bad("the head is not whole"));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, query, headers, body: Bytes::new() };
    request.body = body(reader, &request)?;
    Ok(Some(request))
}

fn body(reader: &mut impl BufRead, request: &Request) -> io::Result<Bytes> {
    if request.header("transfer-encoding").is_none() {
        let length = request.header("content-length").unwrap_or("0");
        let length = length.parse().map_err(|_| bad("an odd length"))?;
        return exactly(reader, length).map(Bytes::from);
    }
    let mut whole = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| bad("an odd chunk"))?;
        whole.extend(exactly(reader, size)?);
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(whole.into());
        }
    }
}

/// A body that was not sent whole is never acted upon.
fn exactly(reader: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(length.min(64 << 20));
    reader.take(length as u64).read_to_end(&mut body)?;
    if body.len() == length { Ok(body) } else { Err(bad("the body is not whole")) }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = std::str::from_utf8(after.get(..2).unwrap_or_default()).unwrap_or_default();
        match u8::from_str_radix(code, 16) {
            Ok(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer's head.
pub(super) fn head(answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if answer.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        400 => "Bad Request",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        416 => "Requested Range Not Satisfiable",
        _ => "Not Implemented",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_the_other() {
        let bytes = b"PUT /b/a%2Fc%25?partNumber=1&uploadId=x%20y HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\
                      POST /b?uploads HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        let mut reader = &bytes[..];
        let put = read(&mut reader).unwrap().unwrap();
        assert_eq!((put.method.as_str(), put.path.as_str(), &put.body[..]), ("PUT", "b/a/c%", &b"hi"[..]));
        assert_eq!((put.query("partNumber"), put.query("uploadId")), (Some("1"), Some("x y")));
        let post = read(&mut reader).unwrap().unwrap();
        assert_eq!((post.query("uploads"), &post.body[..]), (Some(""), &b"abc"[..]));
        assert!(read(&mut reader).unwrap().is_none());
        assert!(read(&mut &b"PUT /b/a HTTP/1.1\r\ncontent-length: 3\r\n\r\nhi"[..]).is_err());
    }
}
