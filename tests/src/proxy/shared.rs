//! What the threads of a proxy share: its script, its log, its listener.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::script::{Fault, Request, Rule};
use super::{Seen, Speaks, raw, relay};
use crate::Port;

#[derive(Debug)]
pub(super) struct Shared {
    listener: TcpListener,
    port: Port,
    pub(super) speaks: Speaks,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) upstream: SocketAddr,
    pub(super) rules: Vec<Rule>,
    pub(super) log: Vec<Seen>,
    /// Grows with each script, and frees whoever stalls for an older one.
    pub(super) script: u64,
    open: bool,
    /// How often the listener was closed: connections from before do not live on.
    outages: u64,
    pub(super) ended: bool,
    connections: Vec<Weak<TcpStream>>,
}

impl Shared {
    /// Listens on a free port.
    pub(super) fn new(speaks: Speaks, upstream: SocketAddr) -> Shared {
        let port = Port::free();
        let listener = bind(&port);
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
        Shared { listener, port, speaks, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Frees whoever waits for something to change.
    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outages(&self) -> u64 {
        self.state().outages
    }

    pub(super) fn accept(self: Arc<Shared>) {
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
    pub(super) fn meet(&self, request: &Request) -> (usize, Option<Fault>) {
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
    pub(super) fn note(&self, seen: (usize, Instant), change: impl FnOnce(&mut Seen)) {
        let mut state = self.state();
        // An index of a log that was taken belongs to no request, or to a later one.
        if let Some(entry) = state.log.get_mut(seen.0).filter(|entry| entry.at <= seen.1) {
            change(entry);
        }
    }

    pub(super) fn upstream(&self) -> io::Result<TcpStream> {
        let upstream = self.state().upstream;
        let stream = TcpStream::connect(upstream)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Waits until another script is set or the proxy ends.
    pub(super) fn stall(&self) {
        let state = self.state();
        let begun = state.script;
        let wait = |state: &mut State| state.script == begun && !state.ended;
        drop(self.changed.wait_while(state, wait));
    }

    /// Waits, but not beyond another script or the proxy's end.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.state();
        let begun = state.script;
        let wait = |state: &mut State| state.script == begun && !state.ended;
        drop(self.changed.wait_timeout_while(state, time, wait));
    }

    pub(super) fn close(&self) {
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

    pub(super) fn listen(&self) {
        let mut state = self.state();
        if !state.open && !state.ended {
            rustix::net::listen(&self.listener, 128).expect("listen again");
            state.open = true;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Closes, and listens again after `time`, unless the proxy ended or another script was set.
    pub(super) fn close_for(self: &Arc<Shared>, time: Duration) {
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
    let listener = port.listen();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).expect("set the buffer's size");
    listener
}

/// Ends a connection as a crashed peer or an angry firewall does: with a reset, once nobody holds it any more.
pub(super) fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    // Wakes whoever reads or writes; the way in alone, because a FIN would reach the peer before the reset.
    let _ = stream.shutdown(Shutdown::Read);
}
