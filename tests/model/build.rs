//! The program's own gate.rs and lease.rs, with loom and the scripted kernel in
//! the place of what they take from `std`.

use std::{env, fs};

fn main() {
    model(
        "lease",
        &[
            ("std::sync::atomic", "loom::sync::atomic"),
            (
                "std::time::{Duration, Instant}",
                "{crate::kernel::Instant, std::time::Duration}",
            ),
        ],
    );
    model(
        "gate",
        &[
            (
                "std::net::{Shutdown, SocketAddr, TcpListener, TcpStream}",
                "{crate::kernel::{TcpListener, TcpStream}, std::net::{Shutdown, SocketAddr}}",
            ),
            ("std::os::fd::OwnedFd", "crate::kernel::OwnedFd"),
            ("std::sync::mpsc", "crate::kernel::mpsc"),
            ("std::thread", "loom::thread"),
            (
                "crate::sys::{self, SO_REUSEADDR, SO_REUSEPORT}",
                "crate::kernel::{self as sys, SO_REUSEADDR, SO_REUSEPORT}",
            ),
        ],
    );
}

fn model(module: &str, uses: &[(&str, &str)]) {
    let path = format!("../../src/{module}.rs");
    println!("cargo::rerun-if-changed={path}");
    let mut source = fs::read_to_string(&path).expect("read the source");
    for (from, to) in uses {
        assert_eq!(source.matches(&format!("use {from}")).count(), 1, "{from}");
        source = source.replace(&format!("use {from}"), &format!("use {to}"));
    }
    // include!() takes no comments about the whole file, nor other tests.
    let source = source.replace("//!", "//");
    let source = source.split("#[cfg(test)]").next().expect("a first part");
    let folder = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(format!("{folder}/{module}.rs"), source).expect("write the model");
}
