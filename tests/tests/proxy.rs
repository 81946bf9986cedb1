//! The fault proxy itself: each fault, as a plain client sees it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use walarchive_tests::Port;
use walarchive_tests::proxy::{Answer, Fault, Proxy, Rule};

/// An HTTP server that answers with the body that it got, and keeps all bodies; how many connections broke off.
#[derive(Debug, Clone, Default)]
struct Echo {
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    broken: Arc<Mutex<Vec<usize>>>,
}

impl Echo {
    fn start() -> (Echo, SocketAddr) {
        let port = Port::free();
        let (listener, echo, addr) = (port.listen(), Echo::default(), port.addr());
        let server = echo.clone();
        thread::spawn(move || {
            let _port = port;
            for client in listener.incoming() {
                let (server, client) = (server.clone(), client.unwrap());
                thread::spawn(move || server.serve(&client));
            }
        });
        (echo, addr)
    }

    fn serve(&self, mut client: &TcpStream) {
        let mut input = BufReader::new(client);
        while let Some((start, length, _)) = read_head(&mut input) {
            let mut body = Vec::new();
            let _ = (&mut input).take(length as u64).read_to_end(&mut body);
            if body.len() < length {
                self.broken.lock().unwrap().push(body.len());
                return;
            }
            let answer = if start.contains("/chunked") {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for piece in body.chunks(7) {
                    answer.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                    answer.extend([piece, b"\r\n"].concat());
                }
                answer.extend(b"0\r\n\r\n");
                answer
            } else {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let content: &[u8] = if start.starts_with("HEAD") { b"" } else { &body };
                [head.as_bytes(), content].concat()
            };
            self.kept.lock().unwrap().push(body);
            if client.write_all(&answer).is_err() {
                return;
            }
        }
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        self.kept.lock().unwrap().clone()
    }
}

/// The first line, the length of the body, and whether that body is chunked.
fn read_head(input: &mut impl BufRead) -> Option<(String, usize, bool)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_ascii_lowercase());
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: "));
    let chunked = lines.iter().any(|line| line == "transfer-encoding: chunked");
    let start = lines.first()?.to_ascii_uppercase().replace("/CHUNKED", "/chunked");
    Some((start, length.map_or(0, |length| length.parse().unwrap()), chunked))
}

/// What a client sees.
#[derive(Debug, Clone, PartialEq, Eq)]
enum View {
    Whole(u16, Vec<u8>),
    /// The head, so much of the body, and a clean end.
    Short(Vec<u8>),
    /// A reset after so much of the body.
    Reset(Vec<u8>),
    /// Nothing more came for half a second.
    Silence(Vec<u8>),
    Refused,
    /// A clean end before there was a head.
    Nothing,
}

struct Client {
    addr: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    fn new(addr: SocketAddr) -> Client {
        Client { addr, stream: None }
    }

    /// Sends a request, on the connection that is there if there is one.
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> View {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(self.addr) {
                Ok(stream) => stream,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                    return View::Refused;
                }
            },
        };
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: signed.example\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if let Err(error) = stream.write_all(&[head.as_bytes(), body].concat()) {
            match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return View::Silence(Vec::new()),
                _ => return View::Reset(Vec::new()),
            }
        }
        let (view, keep) = receive(&stream, method);
        self.stream = keep.then_some(stream);
        view
    }
}

fn receive(stream: &TcpStream, method: &str) -> (View, bool) {
    let mut input = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match input.read(&mut byte) {
            Ok(0) if head.is_empty() => return (View::Nothing, false),
            Ok(0) => return (View::Short(Vec::new()), false),
            Ok(_) => head.push(byte[0]),
            Err(error) => return (failure(error.kind(), Vec::new()), false),
        }
    }
    let text = String::from_utf8(head.clone()).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, length, chunked) = read_head(&mut &head[..]).unwrap();
    let mut body = Vec::new();
    while chunked || body.len() < length {
        if method == "HEAD" || (chunked && body.ends_with(b"0\r\n\r\n")) {
            break;
        }
        let mut buffer = vec![0; 4096];
        match input.read(&mut buffer) {
            Ok(0) => return (View::Short(body), false),
            Ok(read) => body.extend(&buffer[..read]),
            Err(error) => return (failure(error.kind(), body), false),
        }
    }
    (View::Whole(status, body), !text.contains("close"))
}

fn failure(kind: ErrorKind, body: Vec<u8>) -> View {
    match kind {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => View::Silence(body),
        ErrorKind::ConnectionReset => View::Reset(body),
        other => panic!("{other:?}"),
    }
}

const BODY: &[u8] = b"the quick brown fox jumps over the lazy dog";

/// Asks once under a fault and once after it: the view, what the server kept in the first, and the number of its
/// broken requests.
fn under(fault: Fault) -> (View, Vec<Vec<u8>>, Vec<usize>) {
    let (echo, addr) = Echo::start();
    let proxy = Proxy::start(addr);
    proxy.set([Rule::once(fault.clone())]);
    let mut client = Client::new(proxy.addr());
    let view = client.ask("PUT", "/some/key?query=1", BODY);
    thread::sleep(Duration::from_millis(50));
    let (kept, broken) = (echo.kept(), echo.broken.lock().unwrap().clone());
    let log = proxy.take_log();
    assert_eq!((log.len(), proxy.applied()), (1, 1), "{fault:?}");
    assert_eq!((log[0].method.as_str(), log[0].path.as_str()), ("PUT", "/some/key?query=1"));
    if !matches!(fault, Fault::Outage(_)) {
        let again = client.ask("PUT", "/other", BODY);
        assert_eq!(again, View::Whole(200, BODY.to_vec()), "after {fault:?}");
    }
    (view, kept, broken)
}

fn whole() -> View {
    View::Whole(200, BODY.to_vec())
}

#[test]
fn without_faults_it_is_not_there() {
    let (echo, addr) = Echo::start();
    let proxy = Proxy::start(addr);
    let mut client = Client::new(proxy.addr());
    for number in 0..3 {
        assert_eq!(client.ask("PUT", &format!("/{number}"), BODY), whole());
        assert!(client.stream.is_some(), "the connection is kept");
    }
    assert_eq!(client.ask("GET", "/", b""), View::Whole(200, Vec::new()));
    assert_eq!(client.ask("HEAD", "/", BODY), View::Whole(200, Vec::new()));
    let large = vec![7; 3 << 20];
    assert_eq!(client.ask("PUT", "/large", &large), View::Whole(200, large));
    assert_eq!(echo.kept().len(), 6);
    let log = proxy.take_log();
    assert!(log.iter().all(|seen| (seen.upstream, seen.status) == (Some(200), Some(200))), "{log:#?}");
    assert!(proxy.take_log().is_empty());
    assert!(proxy.addr().port() < 32_768 && proxy.addr().ip().is_loopback());
}

#[test]
fn resets_are_seen_where_they_happen() {
    assert_eq!(under(Fault::Reset), (View::Reset(vec![]), vec![], vec![]));
    assert_eq!(under(Fault::ResetRequest(10)), (View::Reset(vec![]), vec![], vec![10]));
    assert_eq!(under(Fault::ResetRequest(1000)), (View::Reset(vec![]), vec![], vec![BODY.len() - 1]));
    let kept = vec![BODY.to_vec()];
    assert_eq!(under(Fault::ResetAnswer(10)), (View::Reset(BODY[..10].to_vec()), kept.clone(), vec![]));
    assert_eq!(under(Fault::LoseAnswer), (View::Reset(vec![]), kept, vec![]));
}

#[test]
fn short_answers_end_cleanly() {
    let kept = vec![BODY.to_vec()];
    assert_eq!(under(Fault::Truncate(10)), (View::Short(BODY[..10].to_vec()), kept.clone(), vec![]));
    let almost = BODY[..BODY.len() - 1].to_vec();
    assert_eq!(under(Fault::Truncate(u64::MAX)), (View::Short(almost), kept, vec![]));
    // An answer without a body is cut in its head.
    let (_echo, addr) = Echo::start();
    let proxy = Proxy::start(addr);
    proxy.set([Rule::once(Fault::Truncate(10))]);
    assert_eq!(Client::new(proxy.addr()).ask("PUT", "/", b""), View::Short(vec![]));
}

#[test]
fn stalls_are_silence_and_end_with_the_script() {
    let kept = vec![BODY.to_vec()];
    assert_eq!(under(Fault::Swallow), (View::Silence(vec![]), vec![], vec![]));
    assert_eq!(under(Fault::StallHead), (View::Silence(vec![]), kept.clone(), vec![]));
    assert_eq!(under(Fault::StallAnswer(10)), (View::Silence(BODY[..10].to_vec()), kept, vec![]));
    assert_eq!(under(Fault::StallRequest(10)), (View::Silence(vec![]), vec![], vec![]));
    let (echo, addr) = Echo::start();
    let proxy = Proxy::start(addr);
    proxy.set([Rule::always(Fault::StallRequest(10))]);
    // A body that does not fit into the kernel's buffers cannot even be sent.
    assert_eq!(Client::new(proxy.addr()).ask("PUT", "/", &vec![1; 32 << 20]), View::Silence(vec![]));
    proxy.set([Rule::always(Fault::Swallow)]);
    let addr = proxy.addr();
    let waiting = thread::spawn(move || Client::new(addr).ask("PUT", "/", BODY));
    thread::sleep(Duration::from_millis(200));
    proxy.clear();
    assert_eq!(waiting.join().unwrap(), View::Reset(vec![]));
    assert!(echo.kept().is_empty());
}

#[test]
fn answers_are_invented() {
    let slow_down = Answer::slow_down().header("Retry-After", "7");
    for answer in [slow_down.clone(), slow_down.early()] {
        let (view, kept, _) = under(Fault::Answer(answer));
        let View::Whole(503, body) = view else { panic!("{view:?}") };
        assert!(String::from_utf8(body).unwrap().contains("<Code>SlowDown</Code>"));
        assert!(kept.is_empty());
    }
    assert_eq!(under(Fault::keep_nothing()), (View::Whole(200, vec![]), vec![], vec![]));
    let half = BODY[..BODY.len() / 2].to_vec();
    assert_eq!(under(Fault::KeepHalf), (View::Whole(200, vec![]), vec![half], vec![]));
    let told = Fault::Invent(Arc::new(|request| {
        assert_eq!((request.body.as_slice(), request.header("host")), (BODY, Some("signed.example")));
        Answer::new(418).body("tea")
    }));
    assert_eq!(under(told).0, View::Whole(418, b"tea".to_vec()));
}

#[test]
fn bytes_are_changed_and_requests_doubled() {
    let flipped = |at: usize| {
        let mut body = BODY.to_vec();
        body[at] ^= 0x10;
        body
    };
    assert_eq!(under(Fault::FlipRequest(3)), (View::Whole(200, flipped(3)), vec![flipped(3)], vec![]));
    let last = BODY.len() - 1;
    let kept = vec![BODY.to_vec()];
    assert_eq!(under(Fault::FlipAnswer(u64::MAX)), (View::Whole(200, flipped(last)), kept.clone(), vec![]));
    assert_eq!(under(Fault::Duplicate), (whole(), [kept.clone(), kept].concat(), vec![]));
}

#[test]
fn time_passes() {
    let begun = Instant::now();
    assert_eq!(under(Fault::Delay(Duration::from_millis(300))).0, whole());
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let begun = Instant::now();
    assert_eq!(under(Fault::Slow(10, Duration::from_millis(100))).0, whole());
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn nobody_listens_for_a_while_and_then_again() {
    let (view, kept, _) = under(Fault::Outage(Duration::from_secs(60)));
    assert_eq!((view, kept), (View::Reset(vec![]), vec![]));
    let (_echo, addr) = Echo::start();
    let proxy = Proxy::start(addr);
    let mut client = Client::new(proxy.addr());
    assert_eq!(client.ask("GET", "/", BODY), whole());
    proxy.down();
    assert_eq!(client.ask("GET", "/", BODY), View::Reset(vec![]));
    assert_eq!(client.ask("GET", "/", BODY), View::Refused);
    proxy.up();
    assert_eq!(client.ask("GET", "/", BODY), whole());
    proxy.set([Rule::once(Fault::Outage(Duration::from_millis(300)))]);
    let begun = Instant::now();
    while client.ask("GET", "/", BODY) != whole() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn rules_choose_their_requests() {
    let (_echo, addr) = Echo::start();
    let proxy = Proxy::start(addr);
    let answer = |status| Fault::Answer(Answer::new(status));
    proxy.set([
        Rule::once(answer(500)).method("PUT").path("/wal/").after(1),
        Rule::times(2, answer(501)).method("GET"),
        Rule::always(answer(502)).header("x-none"),
        Rule::always(answer(503)).when(|request| request.path.ends_with("?list")),
    ]);
    let mut client = Client::new(proxy.addr());
    let mut status = |method: &str, path: &str| match client.ask(method, path, b"") {
        View::Whole(status, _) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!([status("PUT", "/wal/1"), status("PUT", "/wal/2"), status("PUT", "/wal/3")], [200, 500, 200]);
    assert_eq!([status("GET", "/1"), status("GET", "/2"), status("GET", "/3")], [501, 501, 200]);
    assert_eq!([status("HEAD", "/a?list"), status("HEAD", "/a")], [503, 200]);
    assert_eq!(proxy.applied(), 4);
}

#[test]
fn chunked_answers_stay_chunked() {
    let (_echo, addr) = Echo::start();
    let proxy = Proxy::start(addr);
    let View::Whole(200, body) = Client::new(proxy.addr()).ask("PUT", "/chunked", BODY) else { panic!() };
    assert_eq!(body, [b"2b\r\n", BODY, b"\r\n0\r\n\r\n"].concat());
    proxy.set([Rule::once(Fault::Truncate(10))]);
    let view = Client::new(proxy.addr()).ask("PUT", "/chunked", BODY);
    assert_eq!(view, View::Short([b"a\r\n", &BODY[..10], b"\r\n"].concat()));
}

#[test]
fn any_protocol_can_be_carried_and_cut() {
    let (echo, addr) = Echo::start();
    let proxy = Proxy::raw(addr);
    let ask = || Client::new(proxy.addr()).ask("PUT", "/", BODY);
    assert_eq!(ask(), whole());
    // Positions count everything, heads too: those of the client and of the server here.
    let (request, answer) = (60, 39);
    proxy.set([Rule::once(Fault::ResetRequest(request + 10))]);
    assert_eq!(ask(), View::Reset(vec![]));
    proxy.set([Rule::once(Fault::ResetAnswer(answer + 10))]);
    assert_eq!(ask(), View::Reset(BODY[..10].to_vec()));
    proxy.set([Rule::once(Fault::Truncate(answer + 10))]);
    assert_eq!(ask(), View::Short(BODY[..10].to_vec()));
    proxy.set([Rule::once(Fault::StallAnswer(answer + 10))]);
    assert_eq!(ask(), View::Silence(BODY[..10].to_vec()));
    proxy.set([Rule::once(Fault::FlipRequest(request))]);
    assert_ne!(ask(), whole());
    proxy.set([Rule::once(Fault::Reset)]);
    assert_eq!(ask(), View::Reset(vec![]));
    assert_eq!(ask(), whole());
    assert_eq!(echo.broken.lock().unwrap().clone(), [10]);
    proxy.down();
    assert_eq!(ask(), View::Refused);
}
