//! What is shipped: the binary, its bytes and licences, the packages, the unit and
//! its files, the image and the manifests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod binary;
#[path = "../common/mod.rs"]
mod common;
mod licences;
mod openshift;
mod packages;
mod systemd;
