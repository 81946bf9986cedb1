//! One connection of any protocol: bytes in both directions.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::script::{Fault, Request};
use super::shared::{Shared, reset};

/// What happens in one direction.
#[derive(Debug, Clone, Copy)]
enum Tamper {
    Nothing,
    Reset(u64),
    Close(u64),
    Stall(u64),
    Flip(u64),
}

/// Carries bytes until both directions have ended, or the listener is closed, which it was `born` times before.
pub(super) fn serve(shared: &Arc<Shared>, client: &Arc<TcpStream>, born: u64) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (_, fault) = shared.meet(&Request::default());
    let (there, back) = match fault {
        Some(Fault::Outage(time)) => {
            shared.close_for(time);
            return Ok(());
        }
        Some(Fault::Reset) => {
            reset(client);
            return Ok(());
        }
        Some(Fault::Delay(time)) => {
            shared.pause(time);
            (Tamper::Nothing, Tamper::Nothing)
        }
        Some(Fault::ResetRequest(at)) => (Tamper::Reset(at), Tamper::Nothing),
        Some(Fault::StallRequest(at)) => (Tamper::Stall(at), Tamper::Nothing),
        Some(Fault::FlipRequest(at)) => (Tamper::Flip(at), Tamper::Nothing),
        Some(Fault::ResetAnswer(at)) => (Tamper::Nothing, Tamper::Reset(at)),
        Some(Fault::StallAnswer(at)) => (Tamper::Nothing, Tamper::Stall(at)),
        Some(Fault::FlipAnswer(at)) => (Tamper::Nothing, Tamper::Flip(at)),
        Some(Fault::Truncate(at)) => (Tamper::Nothing, Tamper::Close(at)),
        _ => (Tamper::Nothing, Tamper::Nothing),
    };
    let upstream = Arc::new(shared.upstream()?);
    let (up, down) = (upstream.clone(), client.clone());
    let other = shared.clone();
    let cut = Arc::new(AtomicBool::new(false));
    let cut_there = cut.clone();
    let thread = thread::spawn(move || carry(&other, (&down, &up), there, &cut_there, born));
    carry(shared, (&upstream, client), back, &cut, born);
    let _ = thread.join();
    Ok(())
}

fn carry(
    shared: &Shared,
    (mut from, mut to): (&TcpStream, &TcpStream),
    tamper: Tamper,
    ended: &AtomicBool,
    born: u64,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0u64;
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        let piece = &mut buffer[..read];
        let within = |at: u64| at.checked_sub(passed).map(|at| at as usize).filter(|at| *at < read);
        let cut = match tamper {
            Tamper::Reset(at) | Tamper::Close(at) | Tamper::Stall(at) => within(at),
            Tamper::Flip(at) => {
                if let Some(at) = within(at) {
                    piece[at] ^= 0x10;
                }
                None
            }
            Tamper::Nothing => None,
        };
        if to.write_all(&piece[..cut.unwrap_or(read)]).is_err() {
            break;
        }
        if cut.is_some() {
            ended.store(true, Ordering::SeqCst);
            return end(shared, from, to, tamper);
        }
        passed += read as u64;
    }
    // A connection that is being reset must not end politely before that.
    if !ended.load(Ordering::SeqCst) && shared.outages() == born {
        let _ = to.shutdown(Shutdown::Write);
    }
}

fn end(shared: &Shared, from: &TcpStream, to: &TcpStream, tamper: Tamper) {
    match tamper {
        Tamper::Close(_) => {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
        Tamper::Stall(_) => shared.stall(),
        // Time to be read, because a reset throws away what was not.
        _ => thread::sleep(Duration::from_millis(20)),
    }
    reset(from);
    reset(to);
}
