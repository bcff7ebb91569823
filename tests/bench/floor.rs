//! The least that does the job: sockets of `std`, a fixed request, `starts_with`.
//! No timeout, no lease, no log, no signals, no name look-up, no HTTP. What healthport may
//! cost is a multiple of it, so that no bound depends on the compiler or the machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

const REQUEST: &[u8] =
    b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Arguments: the service, the interval in milliseconds, the port.
fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [service, interval, port] = &args[..] else {
        panic!("usage: floor SERVICE MILLISECONDS PORT");
    };
    let service: SocketAddr = service.parse().unwrap();
    let interval = Duration::from_millis(interval.parse().unwrap());
    let mut open: Option<TcpStream> = None;
    loop {
        let mut stream = TcpStream::connect(service).unwrap();
        stream.write_all(REQUEST).unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).unwrap_or(0);
        let ready = answer[..length].starts_with(b"HTTP/1.1 200 ");
        if let Some(listener) = open.take_if(|_| !ready) {
            listener.shutdown(Shutdown::Both).unwrap();
        } else if ready && open.is_none() {
            let listener = TcpListener::bind(port).unwrap();
            open = Some(OwnedFd::from(listener.try_clone().unwrap()).into());
            thread::spawn(move || while listener.accept().is_ok() {});
        }
        drop(stream);
        thread::sleep(interval);
    }
}
