//! One HTTP connection of a client, request by request.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http::{self, Framing, Head, Message};
use super::script::{Answer, Fault, Request};
use super::shared::{Shared, reset};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Next,
    Close,
    Reset,
}

/// What happens to an answer at some byte of it.
#[derive(Debug, Clone, Copy)]
enum Tamper {
    Nothing,
    Cut(u64, Then),
    Stall(u64),
    Flip(u64),
    Slow(usize, Duration),
}

/// Serves a client until one of them has enough, or the listener is closed, which it was `born` times before.
pub(super) fn serve(shared: &Arc<Shared>, client: &Arc<TcpStream>, born: u64) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut input = BufReader::new(&**client);
    while let Some(head) = Head::read(&mut input)? {
        if shared.outages() != born {
            reset(client);
            return Ok(());
        }
        let mut exchange = Exchange::begin(shared, client, head);
        match exchange.run(&mut input)? {
            Then::Next => {}
            Then::Close => return Ok(()),
            Then::Reset => {
                reset(client);
                return Ok(());
            }
        }
    }
    Ok(())
}

struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    client: &'a TcpStream,
    head: Head,
    request: Request,
    fault: Option<Fault>,
    seen: (usize, Instant),
}

impl<'a> Exchange<'a> {
    fn begin(shared: &'a Arc<Shared>, client: &'a TcpStream, mut head: Head) -> Exchange<'a> {
        let request = Request {
            method: head.method().to_owned(),
            path: head.path().to_owned(),
            headers: head.headers.clone(),
            body: Vec::new(),
        };
        if head.get("Expect").is_some() {
            head.remove("Expect");
            let _ = (&mut &*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let (index, fault) = shared.meet(&request);
        Exchange { shared, client, head, request, fault, seen: (index, Instant::now()) }
    }

    fn run(&mut self, input: &mut BufReader<&TcpStream>) -> io::Result<Then> {
        let fault = self.fault.take();
        let framing = self.head.request_framing();
        match &fault {
            Some(Fault::Outage(time)) => {
                self.shared.close_for(*time);
                return Ok(Then::Reset);
            }
            Some(Fault::Reset) => return Ok(Then::Reset),
            Some(Fault::Answer(answer)) if answer.early => return self.answer_early(input, answer),
            Some(Fault::StallRequest(at)) => {
                http::read_body(input, framing, before_end(*at, framing))?;
                self.shared.stall();
                return Ok(Then::Reset);
            }
            Some(Fault::ResetRequest(at)) => {
                let (part, _) = http::read_body(input, framing, before_end(*at, framing))?;
                self.send_part(&part)?;
                return Ok(Then::Reset);
            }
            _ => {}
        }
        let (body, whole) = http::read_body(input, framing, u64::MAX)?;
        if !whole {
            self.send_part(&body)?;
            return Ok(Then::Reset);
        }
        self.request.body = body;
        self.answer(fault)
    }

    /// What happens once the request is there.
    fn answer(&mut self, fault: Option<Fault>) -> io::Result<Then> {
        match fault {
            Some(Fault::Answer(answer)) => return self.invent(&answer),
            Some(Fault::Invent(invention)) => return self.invent(&invention(&self.request)),
            Some(Fault::Swallow) => {
                self.shared.stall();
                return Ok(Then::Reset);
            }
            Some(Fault::KeepHalf) => return self.keep_half(),
            Some(Fault::Delay(time)) => self.shared.pause(time),
            Some(Fault::Duplicate) => drop(self.forward()?),
            Some(Fault::FlipRequest(at)) => flip(&mut self.request.body, at),
            _ => {}
        }
        let answer = self.forward()?;
        let tamper = match fault {
            Some(Fault::LoseAnswer) => return Ok(Then::Reset),
            Some(Fault::StallHead) => {
                self.shared.stall();
                return Ok(Then::Reset);
            }
            Some(Fault::ResetAnswer(at)) => Tamper::Cut(at, Then::Reset),
            Some(Fault::Truncate(at)) => Tamper::Cut(at, Then::Close),
            Some(Fault::StallAnswer(at)) => Tamper::Stall(at),
            Some(Fault::FlipAnswer(at)) => Tamper::Flip(at),
            Some(Fault::Slow(bytes, pause)) => Tamper::Slow(bytes, pause),
            _ => Tamper::Nothing,
        };
        self.give(answer, tamper)
    }

    /// Passes the request on, and takes the answer in.
    fn forward(&self) -> io::Result<Message> {
        let upstream = self.shared.upstream()?;
        // A server may answer before it has read everything, and close: its answer still counts.
        let sent = self.send(&upstream, &self.request.body);
        let mut input = BufReader::new(&upstream);
        let head = loop {
            match Head::read(&mut input)? {
                Some(head) if head.status() == 100 => {}
                Some(head) => break head,
                None => return Err(sent.err().unwrap_or(io::ErrorKind::UnexpectedEof.into())),
            }
        };
        let framing = head.answer_framing(&self.request.method);
        let (body, whole) = http::read_body(&mut input, framing, u64::MAX)?;
        self.shared.note(self.seen, |seen| seen.upstream = Some(head.status()));
        Ok(Message { head, body, whole })
    }

    fn send(&self, mut upstream: &TcpStream, body: &[u8]) -> io::Result<()> {
        let framing = self.head.request_framing();
        upstream.write_all(&self.head.encode())?;
        http::write_piece(&mut upstream, framing, body)?;
        http::write_end(&mut upstream, framing)
    }

    /// The upstream sees the beginning of a request, and then that its client is gone.
    fn send_part(&self, part: &[u8]) -> io::Result<()> {
        let mut upstream = self.shared.upstream()?;
        upstream.write_all(&self.head.encode())?;
        http::write_piece(&mut upstream, self.head.request_framing(), part)?;
        // Time to be read, because a reset throws away what was not.
        std::thread::sleep(Duration::from_millis(20));
        reset(&upstream);
        Ok(())
    }

    fn keep_half(&mut self) -> io::Result<Then> {
        let half = self.request.body.len() / 2;
        self.request.body.truncate(half);
        self.head.remove("Transfer-Encoding");
        self.head.set("Content-Length", &half.to_string());
        let answer = self.forward()?;
        let mut lie = Answer::new(200);
        if let Some(tag) = answer.head.get("ETag") {
            lie = lie.header("ETag", tag);
        }
        self.invent(&lie)
    }

    fn invent(&self, answer: &Answer) -> io::Result<Then> {
        let mut head =
            Head { start: format!("HTTP/1.1 {} Scripted", answer.status), headers: answer.headers.clone() };
        // An answer to HEAD tells the length of what it leaves out.
        head.set("Content-Length", &answer.body.len().to_string());
        let body = if self.request.method == "HEAD" { Vec::new() } else { answer.body.clone() };
        self.give(Message { head, body, whole: true }, Tamper::Nothing)
    }

    fn answer_early(&self, input: &mut BufReader<&TcpStream>, answer: &Answer) -> io::Result<Then> {
        self.invent(&answer.clone().header("Connection", "close"))?;
        self.client.shutdown(std::net::Shutdown::Write)?;
        // Reads on for a moment: a reset would throw the answer away before the client reads it.
        self.client.set_read_timeout(Some(Duration::from_millis(500)))?;
        let _ = io::copy(input, &mut io::sink());
        Ok(Then::Close)
    }

    /// Gives the client an answer, as far as `tamper` lets it.
    fn give(&self, mut answer: Message, tamper: Tamper) -> io::Result<Then> {
        let mut client = self.client;
        let framing = answer.head.answer_framing(&self.request.method);
        self.shared.note(self.seen, |seen| seen.status = Some(answer.head.status()));
        let head = answer.head.encode();
        if let Tamper::Flip(at) = tamper {
            flip(&mut answer.body, at);
        }
        let cut = match tamper {
            Tamper::Cut(at, _) | Tamper::Stall(at) => Some(at),
            _ => None,
        };
        if let Some(at) = cut {
            let length = answer.body.len() as u64;
            if length == 0 {
                client.write_all(&head[..head.len() / 2])?;
            } else {
                client.write_all(&head)?;
                http::write_piece(&mut client, framing, &answer.body[..cut_at(at, length)])?;
            }
            return Ok(self.end_cut(tamper));
        }
        client.write_all(&head)?;
        self.write_pieces(framing, &answer.body, tamper)?;
        if !answer.whole {
            return Ok(Then::Reset);
        }
        http::write_end(&mut client, framing)?;
        let closing = answer.head.get("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(if closing || framing == Framing::UntilClose { Then::Close } else { Then::Next })
    }

    fn write_pieces(&self, framing: Framing, body: &[u8], tamper: Tamper) -> io::Result<()> {
        let mut client = self.client;
        let (size, pause) = match tamper {
            Tamper::Slow(bytes, pause) => (bytes.max(1), pause),
            _ => (64 << 10, Duration::ZERO),
        };
        for piece in body.chunks(size) {
            if !pause.is_zero() {
                self.shared.pause(pause);
            }
            http::write_piece(&mut client, framing, piece)?;
        }
        Ok(())
    }

    fn end_cut(&self, tamper: Tamper) -> Then {
        match tamper {
            Tamper::Cut(_, Then::Reset) => {
                // Time to be read, because a reset throws away what was not.
                std::thread::sleep(Duration::from_millis(20));
                Then::Reset
            }
            Tamper::Stall(_) => {
                self.shared.stall();
                Then::Reset
            }
            _ => Then::Close,
        }
    }
}

/// A position in a body whose length may be known, before its end.
fn before_end(at: u64, framing: Framing) -> u64 {
    match framing {
        Framing::Length(length) => at.min(length - 1),
        _ => at,
    }
}

fn cut_at(at: u64, length: u64) -> usize {
    usize::try_from(at.min(length - 1)).expect("a body in memory")
}

fn flip(body: &mut [u8], at: u64) {
    if !body.is_empty() {
        let at = cut_at(at, body.len() as u64);
        body[at] ^= 0x10;
    }
}
