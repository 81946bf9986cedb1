//! A scripted fault proxy: what networks and stores do to a client, on purpose and countable.
//!
//! ```no_run
//! use std::time::Duration;
//! use walarchive_tests::proxy::{Answer, Fault, Proxy, Rule};
//!
//! let store = "127.0.0.1:9000".parse().unwrap();
//! let proxy = Proxy::start(store);
//! proxy.set([
//!     Rule::once(Fault::LoseAnswer).method("PUT").path("/wal/"),
//!     Rule::times(3, Fault::Answer(Answer::slow_down())),
//! ]);
//! // … the program talks to proxy.addr() …
//! assert_eq!(proxy.take_log().len(), 5);
//! proxy.down(); // connections are refused until proxy.up()
//! ```
//!
//! Requests and answers are taken in whole before they are passed on, so that every fault is exact to the byte; each
//! request goes to the upstream over a connection of its own. The `Host` header stays as the client signed it.
//! [`Proxy::raw`] does the same for other protocols, where a rule counts connections instead of requests.

mod http;
mod raw;
mod relay;
mod script;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use script::{Answer, Fault, Request, Rule};

use crate::Port;

/// What a proxy understands of what it passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Bytes,
}

/// A request (of a raw proxy: a connection) that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it had come: its head, of a raw proxy its connection.
    pub at: Instant,
    /// The method; empty for a raw proxy.
    pub method: String,
    /// Path and query, as they were sent; empty for a raw proxy.
    pub path: String,
    /// What was done to it, in words; `None`: it was passed on as it is.
    pub fault: Option<String>,
    /// What the upstream answered, whether or not the client got to see it.
    pub upstream: Option<u16>,
    /// The status that the client was sent, whole or in part.
    pub status: Option<u16>,
}

/// A running proxy on a loopback port below 32768; gone, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    addr: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    _port: Port,
    speaks: Speaks,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    rules: Vec<Rule>,
    log: Vec<Seen>,
    /// Grows with each script, and frees whoever stalls for an older one.
    script: u64,
    open: bool,
    /// How often the listener was closed: connections from before do not live on.
    outages: u64,
    ended: bool,
    connections: Vec<Weak<TcpStream>>,
}

impl Proxy {
    /// A proxy for an HTTP/1.1 server, without faults so far.
    pub fn start(upstream: SocketAddr) -> Proxy {
        Proxy::speaking(Speaks::Http, upstream)
    }

    /// A proxy for any server that speaks over TCP. Rules count connections, "request" and "answer" are the two
    /// directions; faults that need to understand requests are refused.
    pub fn raw(upstream: SocketAddr) -> Proxy {
        Proxy::speaking(Speaks::Bytes, upstream)
    }

    fn speaking(speaks: Speaks, upstream: SocketAddr) -> Proxy {
        let port = Port::free();
        let (listener, addr) = (bind(&port), port.addr());
        let state = State {
            upstream,
            rules: Vec::new(),
            log: Vec::new(),
            script: 0,
            open: true,
            outages: 0,
            ended: false,
            connections: Vec::new(),
        };
        let shared = Arc::new(Shared {
            listener,
            _port: port,
            speaks,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let worker = shared.clone();
        let accepting = Some(thread::spawn(move || worker.accept()));
        Proxy { shared, addr, accepting }
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Replaces the script: for each request, the first rule that fits and is not used up is applied. Whoever stalled
    /// for the old script is reset.
    pub fn set(&self, script: impl IntoIterator<Item = Rule>) {
        let rules: Vec<Rule> = script.into_iter().collect();
        if self.shared.speaks == Speaks::Bytes {
            rules.iter().for_each(|rule| assert!(rule.fault.is_raw(), "a raw proxy cannot {:?}", rule.fault));
        }
        let mut state = self.shared.state();
        state.rules = rules;
        state.script += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Passes everything on as it is from now on, and listens.
    pub fn clear(&self) {
        self.set([]);
        self.up();
    }

    /// The number of times that rules of the present script were applied.
    pub fn applied(&self) -> usize {
        self.shared.state().rules.iter().map(Rule::applied).sum()
    }

    /// Takes what was seen since the last call.
    pub fn take_log(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.state().log)
    }

    /// Passes on to another server from now on.
    pub fn retarget(&self, upstream: SocketAddr) {
        self.shared.state().upstream = upstream;
    }

    /// Refuses connections and resets those that are there, until [`up`](Proxy::up).
    pub fn down(&self) {
        self.shared.close();
    }

    /// Listens again.
    pub fn up(&self) {
        self.shared.listen();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.close();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outages(&self) -> u64 {
        self.state().outages
    }

    fn accept(self: Arc<Shared>) {
        loop {
            match self.listener.accept() {
                Ok((client, _)) => self.clone().serve(client),
                Err(_) => {
                    // Shut down: until somebody has it listen again.
                    let wait = |state: &mut State| !state.open && !state.ended;
                    let state = self.changed.wait_while(self.state(), wait);
                    if state.unwrap_or_else(PoisonError::into_inner).ended {
                        return;
                    }
                }
            }
        }
    }

    fn serve(self: Arc<Shared>, client: TcpStream) {
        let client = Arc::new(client);
        let mut state = self.state();
        if !state.open {
            drop(state);
            return reset(&client);
        }
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(&client));
        let born = state.outages;
        drop(state);
        thread::spawn(move || {
            // What goes wrong between two others is theirs to notice: their connections end with it.
            let result = match self.speaks {
                Speaks::Http => relay::serve(&self, &client, born),
                Speaks::Bytes => raw::serve(&self, &client, born),
            };
            if result.is_err() {
                reset(&client);
            }
        });
    }

    /// Writes down what came, and finds what to do with it.
    fn meet(&self, request: &Request) -> (usize, Option<Fault>) {
        let mut state = self.state();
        let fault = state.rules.iter_mut().find_map(|rule| rule.apply(request));
        state.log.push(Seen {
            at: Instant::now(),
            method: request.method.clone(),
            path: request.path.clone(),
            fault: fault.as_ref().map(|fault| format!("{fault:?}")),
            upstream: None,
            status: None,
        });
        (state.log.len() - 1, fault)
    }

    /// Adds to what was written down; nothing, when it was taken meanwhile.
    fn note(&self, seen: (usize, Instant), change: impl FnOnce(&mut Seen)) {
        let mut state = self.state();
        // An index of a log that was taken belongs to no request, or to a later one.
        if let Some(entry) = state.log.get_mut(seen.0).filter(|entry| entry.at <= seen.1) {
            change(entry);
        }
    }

    fn upstream(&self) -> io::Result<TcpStream> {
        let upstream = self.state().upstream;
        let stream = TcpStream::connect(upstream)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Waits until another script is set or the proxy ends.
    fn stall(&self) {
        let state = self.state();
        let begun = state.script;
        let wait = |state: &mut State| state.script == begun && !state.ended;
        drop(self.changed.wait_while(state, wait));
    }

    /// Waits, but not beyond another script or the proxy's end.
    fn pause(&self, time: Duration) {
        let state = self.state();
        let begun = state.script;
        let wait = |state: &mut State| state.script == begun && !state.ended;
        drop(self.changed.wait_timeout_while(state, time, wait));
    }

    fn close(&self) {
        let mut state = self.state();
        state.open = false;
        state.outages += 1;
        // The socket stays bound, so that nobody else gets the port.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for connection in state.connections.drain(..) {
            if let Some(connection) = connection.upgrade() {
                reset(&connection);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn listen(&self) {
        let mut state = self.state();
        if !state.open && !state.ended {
            rustix::net::listen(&self.listener, 128).expect("listen again");
            state.open = true;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Closes, and listens again after `time`, unless the proxy ended or another script was set.
    fn close_for(self: &Arc<Shared>, time: Duration) {
        let shared = self.clone();
        let begun = shared.state().script;
        shared.close();
        thread::spawn(move || {
            shared.pause(time);
            if shared.state().script == begun {
                shared.listen();
            }
        });
    }
}

/// A listener whose buffers are small, so that a client notices soon that nobody reads.
fn bind(port: &Port) -> TcpListener {
    let listener = TcpListener::bind(port.addr()).expect("listen on a free port");
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).expect("set the buffer's size");
    listener
}

/// Ends a connection as a crashed peer or an angry firewall does: with a reset, once nobody holds it any more.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    // Wakes whoever reads or writes; the way in alone, because a FIN would reach the peer before the reset.
    let _ = stream.shutdown(Shutdown::Read);
}
