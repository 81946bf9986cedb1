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
mod shared;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

pub use script::{Answer, Fault, Request, Rule};

use shared::Shared;

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
    accepting: Option<JoinHandle<()>>,
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
        let shared = Arc::new(Shared::new(speaks, upstream));
        let worker = shared.clone();
        let accepting = Some(thread::spawn(move || worker.accept()));
        Proxy { shared, accepting }
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr()
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
        self.shared.tell();
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
