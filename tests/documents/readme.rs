//! Runs the README's commands and compares its figures with the program.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{BINARY, Healthport, own_address, run};
use crate::pages::blocks;

const README: &str = include_str!("../../README.md");

#[test]
fn the_main_job_with_the_defaults() {
    assert!(blocks(README, "sh").contains(&"cargo run --release --locked\n"));
    // As cargo would run it; another test is about the build.
    let mut command = Command::new(BINARY);
    let mut healthport = Healthport::spawn(own_address(), command.stderr(Stdio::piped()));
    healthport.says("port closed: cannot connect to 127.0.0.1:1936: connection refused");
    assert!(healthport.child.try_wait().unwrap().is_none(), "it waits");
}

/// The two terminals, in a network of their own, since 8000 may be taken. The
/// service is stopped as soon as the port is open.
#[test]
#[ignore = "needs unshare, ip and python3"]
fn the_service_to_try_it_with() {
    let blocks = blocks(README, "sh");
    let service = blocks.iter().find(|block| block.starts_with("python3 "));
    let ours = blocks
        .iter()
        .find_map(|block| block.split_once("cargo run --release --locked -- "));
    let script = format!(
        "ip link set lo up
        {} >/dev/null 2>&1 & service=$!
        {BINARY} {} 2>&1 | while read -r line; do
            echo \"$line\" >&2
            case $line in *'port open'*) kill $service;; esac
        done",
        service.unwrap().trim(),
        ours.unwrap().1.trim(),
    );
    let mut command = Command::new("unshare");
    command.args([
        "--map-root-user",
        "--net",
        "--pid",
        "--kill-child",
        "sh",
        "-c",
        &script,
    ]);
    let healthport = Healthport::spawn(own_address(), command.stderr(Stdio::piped()));
    healthport.says("port open");
    healthport.says("port closed: cannot connect to 127.0.0.1:8000: connection refused");
}

#[test]
fn the_test_command_is_what_ci_runs() {
    assert!(blocks(README, "sh").contains(&"tests/run\n"));
    assert!(include_str!("../../.ci/run").contains("tests/run"));
}

/// `cargo test` ignores what needs a tool or a long time, tests/run does not. And every
/// file is part of a test: its main.rs names it, or the lab's command.rs.
#[test]
fn every_test_is_run() {
    let run = include_str!("../run");
    assert!(run.contains("\ncargo test --locked --no-fail-fast -- --include-ignored\n"));
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let mut files = 0;
    for folder in fs::read_dir(tests).unwrap() {
        let folder = folder.unwrap().path();
        let Ok(mut named) = fs::read_to_string(folder.join("main.rs")) else {
            continue;
        };
        if named.contains("\nmod command;\n") {
            named += &fs::read_to_string(folder.join("command.rs")).unwrap();
        }
        for file in fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if let Some(name) = name.strip_suffix(".rs").filter(|&name| name != "main") {
                assert!(named.contains(&format!("mod {name};\n")), "{name}");
                files += 1;
            }
        }
    }
    assert!(files > 20, "{files} files");
}

#[test]
fn the_budget_is_what_the_program_says() {
    let (code, stdout, _) = run(&["--check-config"]);
    assert_eq!(code, Some(0));
    let row = |name: &str| {
        let line = README
            .lines()
            .find(|line| line.starts_with(&format!("| {name}")))
            .expect("a row");
        line.split('|')
            .map(str::trim)
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    let seconds = |cell: &str| {
        cell.trim_end_matches(" of 45 s")
            .trim_end_matches('s')
            .trim()
            .parse::<f64>()
            .unwrap()
    };
    for (name, words) in [
        ("the router says not ready", "a bad answer"),
        ("the router hangs", "a hang"),
    ] {
        let row = row(name);
        assert!(
            stdout.contains(&format!("closes {} after {words}", row[2])),
            "{row:?}\n{stdout}"
        );
        assert_eq!(
            seconds(&row[2]) + seconds(&row[3]),
            seconds(&row[4]),
            "{row:?}"
        );
        assert!(seconds(&row[4]) < 45.0);
    }
}
