//! Takes the program's own ports.rs, helper.rs and lease.rs and replaces what they use of `std` by
//! loom and the scripted kernel.

use std::{env, fs};

fn main() {
    model(
        "lease",
        &[
            ("use std::sync::atomic", "use loom::sync::atomic"),
            (
                "use std::time::{Duration, Instant}",
                "use {crate::kernel::Instant, std::time::Duration}",
            ),
            // Loom knows no order of a store and somebody else's exchange.
            ("deadline.store(deadline, SeqCst)", "deadline.swap(deadline, SeqCst)"),
        ],
    );
    model(
        "helper",
        &[
            (
                "use std::net::{SocketAddr, TcpListener}",
                "use {crate::kernel::TcpListener, std::net::SocketAddr}",
            ),
            ("use std::sync::mpsc", "use crate::kernel::mpsc"),
            ("use std::thread", "use loom::thread"),
            (
                "use crate::sys::{self, POLLIN,",
                "use crate::kernel::{self as sys, POLLIN,",
            ),
        ],
    );
    model(
        "ports",
        &[
            (
                "use std::net::{SocketAddr, TcpListener}",
                "use {crate::kernel::TcpListener, std::net::SocketAddr}",
            ),
            ("use std::os::fd::OwnedFd", "use crate::kernel::OwnedFd"),
            ("use crate::sys::{self,", "use crate::kernel::{self as sys,"),
        ],
    );
}

fn model(module: &str, changes: &[(&str, &str)]) {
    let path = format!("../../src/{module}.rs");
    println!("cargo::rerun-if-changed={path}");
    let mut source = fs::read_to_string(&path).expect("read the source");
    for (from, to) in changes {
        assert_eq!(source.matches(from).count(), 1, "{from}");
        source = source.replace(from, to);
    }
    // include!() accepts no `//!` comments, and the module's own tests stay out.
    let source = source.replace("//!", "//");
    let source = source.split("#[cfg(test)]").next().expect("a first part");
    let folder = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(format!("{folder}/{module}.rs"), source).expect("write the model");
}
