//! As much of HTTP/1.1 as it takes to tell one message from the next.

use std::io::{self, BufRead, Read, Write};

/// The first line and the headers of a message.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) start: String,
    pub(super) headers: Vec<(String, String)>,
}

/// A request or an answer.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
    /// Whether all of the body came.
    pub(super) whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    /// The next message's head; `None` at the end of the connection.
    pub(super) fn read(input: &mut impl BufRead) -> io::Result<Option<Head>> {
        let Some(start) = line(input)? else { return Ok(None) };
        let mut headers = Vec::new();
        loop {
            let line = line(input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(Some(Head { start, headers }));
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    fn word(&self, number: usize) -> &str {
        self.start.split(' ').nth(number).unwrap_or_default()
    }

    /// The method of a request.
    pub(super) fn method(&self) -> &str {
        self.word(0)
    }

    /// The path and query of a request.
    pub(super) fn path(&self) -> &str {
        self.word(1)
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// How a request's body ends.
    pub(super) fn request_framing(&self) -> Framing {
        self.framing(Framing::Empty)
    }

    /// How the body of an answer to `method` ends.
    pub(super) fn answer_framing(&self, method: &str) -> Framing {
        if method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Framing::Empty;
        }
        self.framing(Framing::UntilClose)
    }

    fn framing(&self, otherwise: Framing) -> Framing {
        if self.get("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        match self.get("Content-Length").and_then(|value| value.parse().ok()) {
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => otherwise,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Reads a body, at most `most` bytes of it; what came, and whether that was all.
pub(super) fn read_body(
    input: &mut impl BufRead,
    framing: Framing,
    most: u64,
) -> io::Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    match framing {
        Framing::Empty => Ok((body, true)),
        Framing::Length(length) => {
            let wanted = length.min(most);
            let read = input.take(wanted).read_to_end(&mut body);
            let whole = read.is_ok() && body.len() as u64 == length;
            Ok((body, whole))
        }
        Framing::UntilClose => {
            let read = input.take(most).read_to_end(&mut body);
            Ok((body, read.is_ok()))
        }
        Framing::Chunked => {
            let whole = read_chunks(input, most, &mut body)?;
            Ok((body, whole))
        }
    }
}

fn read_chunks(input: &mut impl BufRead, most: u64, body: &mut Vec<u8>) -> io::Result<bool> {
    while (body.len() as u64) < most {
        let Some(size) = line(input)? else { return Ok(false) };
        let digits = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            // Trailers, up to the empty line.
            while line(input)?.is_some_and(|line| !line.is_empty()) {}
            return Ok(true);
        }
        let before = body.len() as u64;
        input.take(size).read_to_end(body)?;
        if body.len() as u64 - before < size || line(input)?.is_none() {
            return Ok(false);
        }
    }
    Ok(false)
}

/// A line without its end; `None` at the end of the connection.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    input.read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Writes a piece of a body.
pub(super) fn write_piece(output: &mut impl Write, framing: Framing, piece: &[u8]) -> io::Result<()> {
    if piece.is_empty() {
        return Ok(());
    }
    if framing == Framing::Chunked {
        write!(output, "{:x}\r\n", piece.len())?;
        output.write_all(piece)?;
        return output.write_all(b"\r\n");
    }
    output.write_all(piece)
}

/// Writes what tells that a body is complete.
pub(super) fn write_end(output: &mut impl Write, framing: Framing) -> io::Result<()> {
    if framing == Framing::Chunked { output.write_all(b"0\r\n\r\n") } else { Ok(()) }
}
