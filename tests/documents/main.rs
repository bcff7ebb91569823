//! Compares the pages and the man page with the program. They are no stories, because the
//! README's first command takes port 18898 on every address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod demo;
mod ipvs;
mod man;
mod pages;
mod readme;
mod recipes;
