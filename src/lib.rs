//! healthport translates an application's HTTP health into an open or a closed TCP
//! port. The library exists so that tests, benches and fuzz targets can reach the
//! parts. The program is `main.rs`; the flow is in `daemon.rs`.

mod accept;
pub mod config;
pub mod cycle;
pub mod daemon;
pub mod dial;
mod exchange;
mod fold;
mod health;
mod helper;
pub mod host;
pub mod journal;
mod lease;
pub mod metrics;
pub mod notify;
pub mod options;
pub mod ports;
pub mod probe;
pub mod reason;
pub mod report;
pub mod responder;
pub mod signals;
pub mod sys;
mod values;
