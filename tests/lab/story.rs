//! The tests.
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(Debug, Default)]
pub struct Wanted {
    pub list: bool,
    pub exact: bool,
    pub ignored: bool,
    pub skip: Vec<String>,
    pub filters: Vec<String>,
}

pub fn run(_wanted: &Wanted, _interrupted: &Arc<AtomicBool>) -> ExitCode {
    ExitCode::SUCCESS
}
