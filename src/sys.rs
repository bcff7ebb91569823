//! The system calls that `std` lacks, and the only file with unsafe code. `ports.rs`
//! and `main.rs` explain what they are for.
#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub use libc::{SO_REUSEADDR, SO_REUSEPORT};
use libc::{SOL_SOCKET, c_int, socklen_t};

/// socket(2) and bind(2), with options of socket(7) in between. `std` binds a TCP
/// socket only to listen on it, and chooses the options itself.
pub fn bind(address: SocketAddr, options: &[c_int]) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    // SAFETY: numbers go in and a number comes out.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the descriptor has just been created; nothing else owns it.
    let socket = check(socket).map(|socket| unsafe { OwnedFd::from_raw_fd(socket) })?;
    for &option in options {
        set(&socket, option, true)?;
    }
    // sockaddr_in of ip(7), sockaddr_in6 of ipv6(7).
    let mut name = [0; size_of::<libc::sockaddr_in6>()];
    name[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    let length = match address {
        SocketAddr::V4(address) => {
            name[4..8].copy_from_slice(&address.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            name[8..24].copy_from_slice(&address.ip().octets());
            name[24..].copy_from_slice(&address.scope_id().to_ne_bytes());
            name.len()
        }
    };
    let (pointer, length) = (name.as_ptr().cast(), length as socklen_t);
    // SAFETY: `pointer` points to `length` bytes or more, which outlive the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, length) })?;
    Ok(socket)
}

/// setsockopt(2) with an option of socket(7) that is on or off.
pub fn set(socket: &OwnedFd, option: c_int, on: bool) -> io::Result<()> {
    let (fd, value) = (socket.as_raw_fd(), c_int::from(on));
    let (pointer, length) = ((&raw const value).cast(), size_of_val(&value) as socklen_t);
    // SAFETY: `pointer` points to `length` bytes that outlive the call.
    check(unsafe { libc::setsockopt(fd, SOL_SOCKET, option, pointer, length) }).map(drop)
}

/// listen(2), on a socket that has just been bound, or on one that already listens, to
/// change its backlog.
pub fn listen(socket: OwnedFd, backlog: c_int) -> io::Result<TcpListener> {
    // SAFETY: numbers go in and a number comes out.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket.into())
}

/// mlockall(2): locks in memory what is mapped now.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: a number goes in and a number comes out.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT) }).map(drop)
}

/// The result of a system call, or the error in errno(3).
fn check(result: c_int) -> io::Result<c_int> {
    (result >= 0)
        .then_some(result)
        .ok_or_else(io::Error::last_os_error)
}
