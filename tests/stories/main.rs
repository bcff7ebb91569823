//! Stories of the running program: a scripted service, the real binary, and what the
//! port did. They are one binary, so that they are linked once and run side by side;
//! each has its own address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod daemon;
mod injected;
mod lease;
mod metrics;
mod options;
mod probe;
mod reservation;
mod zoo;
