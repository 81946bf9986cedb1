//! A relay in front of a server, which counts the HTTP requests that pass.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use walarchive_tests::Port;

/// Of a request's head: far more than a client sends.
const HEAD_MAX: usize = 64 << 10;

/// Takes connections for a server, passes all bytes on as they are, and notes the methods of requests. Its threads end with
/// the process.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    /// A relay to the server at `host:port`.
    pub fn to(server: &str) -> Relay {
        let relay = Relay { port: Port::free(), seen: Arc::default() };
        let listener = relay.port.listen();
        let (server, seen) = (server.to_owned(), Arc::clone(&relay.seen));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, seen) = (server.clone(), Arc::clone(&seen));
                // A connection that breaks is the client's to complain about.
                thread::spawn(move || drop(pass(client, &server, &seen)));
            }
        });
        relay
    }

    /// Where clients are sent to: `host:port`.
    pub fn addr(&self) -> String {
        self.port.addr().to_string()
    }

    /// The methods of the requests since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn pass(mut client: TcpStream, server: &str, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut upstream = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let mut requests = Requests::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return upstream.shutdown(Shutdown::Write);
        }
        let methods = requests.take(&buffer[..count]);
        seen.lock().unwrap_or_else(PoisonError::into_inner).extend(methods);
        upstream.write_all(&buffer[..count])?;
    }
}

/// What one connection has sent so far.
#[derive(Debug, Default)]
struct Requests {
    head: Vec<u8>,
    /// Bytes of the body that are still to come.
    body: u64,
}

impl Requests {
    /// The methods of requests whose heads end within `bytes`.
    fn take(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut methods = Vec::new();
        while !bytes.is_empty() {
            if self.body > 0 {
                let passed = self.body.min(bytes.len() as u64);
                self.body -= passed;
                bytes = &bytes[passed as usize..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if self.head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
                methods.push(head.split(' ').next().unwrap_or_default().to_ascii_uppercase());
                self.body = body_of(&head);
                self.head.clear();
            }
            assert!(self.head.len() < HEAD_MAX, "a request's head does not end");
        }
        methods
    }
}

/// The length of a request's body. Where that is not said in advance nothing behind the head is counted.
fn body_of(head: &str) -> u64 {
    let value =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    match (value("content-length"), value("transfer-encoding")) {
        (Some(length), _) => length.parse().unwrap_or(u64::MAX),
        (None, Some(_)) => u64::MAX,
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_bodies_however_they_are_cut() {
        let stream = b"PUT /a HTTP/1.1\r\nContent-Length: 22\r\n\r\nGET / HTTP/1.1\r\n\r\nbodyGET /b HTTP/1.1\r\nHost: x\r\n\r\nHEAD /c HTTP/1.1\r\n\r\n";
        for size in 1..stream.len() {
            let mut requests = Requests::default();
            let found: Vec<String> = stream.chunks(size).flat_map(|bytes| requests.take(bytes)).collect();
            assert_eq!(found, ["PUT", "GET", "HEAD"], "in pieces of {size}");
        }
    }
}
