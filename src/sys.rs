//! The system calls that `std` lacks, and the only file with unsafe code. The files that
//! call them explain what they are for.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

pub use libc::{POLLIN, POLLOUT, SO_REUSEADDR, SO_REUSEPORT};
use libc::{c_int, c_short, sockaddr, socklen_t};

/// socket(2): TCP, non-blocking, with these options of socket(7) switched on.
pub fn socket(address: SocketAddr, options: &[c_int]) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: numbers go in and a number comes out.
    let socket = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the descriptor has just been created; nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    for &option in options {
        set(&socket, option, true)?;
    }
    Ok(socket)
}

/// bind(2). `[::]` is bound for IPv4 too, whatever the sysctl net.ipv6.bindv6only says.
pub fn bind(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() && address.ip().is_unspecified() {
        set_of(libc::IPPROTO_IPV6, socket, libc::IPV6_V6ONLY, false)?;
    }
    name(libc::bind, socket, address)
}

/// Starts a connect(2), of which [`wait`] for POLLOUT sees the end.
pub fn connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, &[])?;
    match name(libc::connect, &socket, address) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// bind(2) or connect(2), with a sockaddr_in of ip(7) or a sockaddr_in6 of ipv6(7).
fn name(
    call: unsafe extern "C" fn(c_int, *const sockaddr, socklen_t) -> c_int,
    socket: &impl AsFd,
    address: SocketAddr,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let result = match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            let (pointer, length) = ((&raw const name).cast(), size_of_val(&name));
            // SAFETY: `pointer` points to `length` bytes that outlive the call.
            unsafe { call(fd, pointer, length as socklen_t) }
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            let (pointer, length) = ((&raw const name).cast(), size_of_val(&name));
            // SAFETY: as above.
            unsafe { call(fd, pointer, length as socklen_t) }
        }
    };
    check(result).map(drop)
}

/// setsockopt(2) with an option of socket(7) that is on or off.
pub fn set(socket: &impl AsFd, option: c_int, on: bool) -> io::Result<()> {
    set_of(libc::SOL_SOCKET, socket, option, on)
}

fn set_of(level: c_int, socket: &impl AsFd, option: c_int, on: bool) -> io::Result<()> {
    let (fd, value) = (socket.as_fd().as_raw_fd(), c_int::from(on));
    let (pointer, length) = ((&raw const value).cast(), size_of_val(&value) as socklen_t);
    // SAFETY: `pointer` points to `length` bytes that outlive the call.
    check(unsafe { libc::setsockopt(fd, level, option, pointer, length) }).map(drop)
}

/// listen(2), on a socket that has just been bound.
pub fn listen(socket: &impl AsFd, backlog: c_int) -> io::Result<()> {
    // SAFETY: numbers go in and a number comes out.
    check(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) }).map(drop)
}

/// shutdown(2) of both directions, of a socket of any state.
pub fn shutdown(socket: &impl AsFd) -> io::Result<()> {
    // SAFETY: numbers go in and a number comes out.
    check(unsafe { libc::shutdown(socket.as_fd().as_raw_fd(), libc::SHUT_RDWR) }).map(drop)
}

/// ppoll(2): waits until `fd` is ready for `events`, or in error; false when the time is
/// up. Every wait of the program is this one. The timeouts of socket(7) run on the
/// kernel's coarse timer wheel and end up to an eighth late (20 s: 1.7 s); this one ended
/// 0.1 ms late on 1 s.
///
/// # Errors
/// `Interrupted` by a signal, for one.
pub fn wait(fd: &impl AsFd, events: c_short, time: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events,
        revents: 0,
    };
    let time = libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    // SAFETY: both pointers are to locals that outlive the call, one pollfd and one time.
    check(unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, ptr::null()) })
        .map(|ready| ready > 0)
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
