//! Hostile input: runs the harness of the fuzz targets over the corpus and over thousands
//! of inputs made from it. cargo-fuzz goes further (`cargo install cargo-fuzz --locked`,
//! and a nightly compiler):
//!
//!     mkdir -p target/corpus/TARGET
//!     cargo +nightly fuzz run --fuzz-dir tests/fuzz TARGET target/corpus/TARGET tests/fuzz/corpus/TARGET
//!
//! TARGET is a folder of tests/fuzz/corpus. New inputs go below target/.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

use std::fs;
use std::path::Path;

use fastrand::Rng;

/// Runs `harness` over the corpus `name` and `more` inputs made from it.
fn feed(name: &str, harness: fn(&[u8]) -> bool, more: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus")
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let corpus: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let mut accepted = corpus.iter().filter(|bytes| harness(bytes)).count();
    assert!(
        accepted > 0 && accepted < corpus.len(),
        "a one-sided corpus"
    );

    let mut random = Rng::with_seed(18898);
    for _ in 0..more {
        let mut bytes = random.choice(&corpus).unwrap().clone();
        for _ in 0..random.usize(1..4) {
            let (at, to) = (random.usize(..=bytes.len()), random.usize(..=bytes.len()));
            let (from, to) = (at.min(to), at.max(to));
            match random.u8(..5) {
                0 if from < bytes.len() => bytes[from] = random.u8(..),
                1 => bytes.insert(from, random.choice(*b" \0\r\n\t:=-,.09msH\xff").unwrap()),
                2 => bytes.truncate(to),
                3 => drop(bytes.drain(from..to)),
                _ => {
                    let other = random.choice(&corpus).unwrap();
                    let part = &other[random.usize(..=other.len())..];
                    bytes.splice(from..to, part.iter().copied());
                }
            }
        }
        accepted += usize::from(harness(&bytes));
    }
    println!("{name}: {accepted} of {} accepted", corpus.len() + more);
}

#[test]
fn command_lines() {
    feed("command_line", harness::command_line, 20_000);
}

#[test]
fn durations_and_status_lists() {
    feed("values", harness::values, 5_000);
}

#[test]
fn requests_for_metrics() {
    feed("request", harness::request, 20_000);
}

#[test]
fn answers_of_a_service() {
    feed("answer", harness::answer, 3_000);
}
