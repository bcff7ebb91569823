//! Runs the README's commands and compares its figures with the program.

use std::process::{Command, Stdio};

use crate::common::{BINARY, Healthport, own_address, run};
use crate::pages::blocks;

const README: &str = include_str!("../../README.md");

#[test]
fn the_main_job_with_the_defaults() {
    let (_, rest) = README.split_once("\n## Try it\n").unwrap();
    let commands = ["tests/demo\n", "cargo run --release --locked\n"];
    assert_eq!(blocks(rest, "sh")[..2], commands);
    // As cargo would run it; another test is about the build.
    let mut command = Command::new(BINARY);
    let mut healthport = Healthport::spawn(own_address(), command.stderr(Stdio::piped()));
    healthport.says("port closed: cannot connect to 127.0.0.1:1936: connection refused");
    assert!(healthport.child.try_wait().unwrap().is_none(), "it waits");
}

#[test]
fn the_budget_is_what_the_program_says() {
    let seconds = |cell: &str| {
        let cell = cell.trim_end_matches(" of 45 s").trim_end_matches('s');
        cell.trim().parse::<f64>().unwrap()
    };
    // With a timeout of 2 s, a hang is what a router reports whose HAProxy hangs.
    for (name, timeout, words) in [
        ("the router says not ready", "10s", "a bad answer"),
        ("its HAProxy hangs", "2s", "a hang"),
        ("router and HAProxy are frozen", "10s", "a hang"),
    ] {
        let (_, stdout, _) = run(&["--check-config", "--timeout", timeout]);
        let mut lines = README.lines();
        let row = lines.find(|line| line.starts_with(&format!("| {name}")));
        let row: Vec<_> = row.expect("a row").split('|').map(str::trim).collect();
        let closes = format!("closes {} after {words}", row[2]);
        assert!(stdout.contains(&closes), "{row:?}\n{stdout}");
        let sum = seconds(row[2]) + seconds(row[3]);
        assert_eq!(sum, seconds(row[4]), "{row:?}");
        assert!(sum < 45.0);
    }
}
