//! Ports for servers, without races between the tests that run at once.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::wait_until;

/// Below the range from which Linux takes the ports of clients, so that no connection can hold one; 10000 above each there
/// may be SeaweedFS's second one.
const PORTS: std::ops::Range<u16> = 12_000..22_000;

/// A port of the loopback address that nobody else who asks here gets as long as this value lives, on this machine.
#[derive(Debug)]
pub struct Port {
    number: u16,
    // The kernel lets one process have the name, and forgets it with that process.
    _claim: UnixListener,
}

impl Port {
    /// A free port.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn free() -> Port {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let count = PORTS.end - PORTS.start;
        // Processes begin at different places: most find a port at the first look.
        let begin = (std::process::id() % u32::from(count)) as u16;
        let mut candidates = (0..count).map(|_| {
            let at = NEXT.fetch_add(1, Ordering::Relaxed) % count;
            PORTS.start + (u32::from(begin) * 37 + u32::from(at)).rem_euclid(u32::from(count)) as u16
        });
        candidates.find_map(Port::claim).expect("a free port")
    }

    fn claim(number: u16) -> Option<Port> {
        let name = Name::from_abstract_name(format!("walarchive-test-port-{number}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        // Asked as a client: a listener, however short its life, would live on in a program that is started meanwhile.
        let used = TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_ok();
        (!used).then_some(Port { number, _claim: claim })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Listens on it, as soon as nobody else does: a program that is being started holds what was open when it was forked.
    ///
    /// # Panics
    ///
    /// When that takes a minute.
    pub fn listen(&self) -> TcpListener {
        let mut listener = None;
        wait_until("the port is free", Duration::from_secs(60), || {
            listener = TcpListener::bind(self.addr()).ok();
            listener.is_some()
        });
        listener.expect("waited for")
    }

    /// The loopback address with it.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once() {
        let ports: Vec<Port> = (0..50).map(|_| Port::free()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(Port::claim(numbers[0]).is_none(), "it is taken");
        drop(ports);
        let again = Port::claim(numbers[0]).expect("it is free again");
        drop(again.listen());
    }

    #[test]
    fn ports_in_use_are_passed_over() {
        let port = Port::free();
        let _server = port.listen();
        let number = port.number();
        drop(port);
        assert!(Port::claim(number).is_none());
    }
}
