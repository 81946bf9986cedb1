//! A look-alike of Google Cloud Storage, as far as object_store's client uses it: the XML API with generations as
//! preconditions, ranges, listings, multipart uploads and checksums. It keeps everything in memory, whether it
//! is stopped or not, and believes every token.

mod api;
mod http;
mod list;
mod store;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::Port;

use super::server::Control;
use store::Store;

/// The server.
#[derive(Debug)]
pub(super) struct Shim {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    store: Mutex<Store>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frozen: bool,
    stopped: bool,
    connections: BTreeMap<u64, TcpStream>,
    accepted: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shim {
    pub fn new() -> Shim {
        Shim { port: Port::free(), shared: Arc::default(), acceptor: Mutex::new(None) }
    }
}

impl Control for Shim {
    fn addr(&self) -> String {
        self.port.addr().to_string()
    }

    fn start(&self) {
        let mut acceptor = lock(&self.acceptor);
        assert!(acceptor.is_none(), "it runs already");
        let listener = self.port.listen();
        lock(&self.shared.state).stopped = false;
        let shared = Arc::clone(&self.shared);
        *acceptor = Some(thread::spawn(move || accept(&listener, &shared)));
    }

    fn stop(&self) {
        let Some(acceptor) = lock(&self.acceptor).take() else { return };
        lock(&self.shared.state).stopped = true;
        // Only a connection wakes it; it may find the state by another one just before.
        let _ = TcpStream::connect(self.port.addr());
        let _ = acceptor.join();
        let mut state = lock(&self.shared.state);
        state.frozen = false;
        for connection in std::mem::take(&mut state.connections).values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    fn freeze(&self, frozen: bool) {
        lock(&self.shared.state).frozen = frozen;
        self.shared.changed.notify_all();
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        let mut state = lock(&shared.state);
        if state.stopped {
            return;
        }
        let Ok(connection) = connection else { continue };
        let Ok(copy) = connection.try_clone() else { continue };
        let number = state.accepted;
        state.accepted += 1;
        state.connections.insert(number, copy);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // The client has broken off, or sends what is no HTTP: neither is worth a word.
            let _ = serve(&connection, &shared);
            let _ = connection.shutdown(Shutdown::Both);
            lock(&shared.state).connections.remove(&number);
        });
    }
}

impl Shared {
    fn wait_while_frozen(&self) {
        let state = lock(&self.state);
        drop(self.changed.wait_while(state, |state| state.frozen));
    }
}

fn serve(connection: &TcpStream, shared: &Shared) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = http::read(&mut reader)? {
        shared.wait_while_frozen();
        let answer = api::answer(&shared.store, &request);
        shared.wait_while_frozen();
        let mut writer = connection;
        writer.write_all(&http::head(&answer))?;
        if request.method != "HEAD" {
            writer.write_all(&answer.body)?;
        }
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}
