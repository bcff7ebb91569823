//! The first command of the README, to its last line, and when it does not get there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::common::{cargo, eventually, proc};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
#[ignore = "takes half a minute, after a release build"]
fn the_demo_loses_requests_with_the_other_check_only() {
    // Not by the limit of `finish`: it takes longer.
    let mut command = Command::new("timeout");
    let output = command.args(["300", "tests/demo"]).current_dir(ROOT);
    let output = output.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");
    let last = stdout.lines().last().unwrap();
    let words: Vec<_> = last.split(' ').collect();
    assert!(words[1].parse::<u32>().unwrap() > 0, "{last}");
    let expected = format!(
        "lost: {} requests with a check of the router's port, 0 with a check of healthport",
        words[1]
    );
    assert_eq!(last, expected);
    assert!(!stdout.contains('\x1b'), "colours in a pipe");
}

/// Killed, it has no chance to end healthport.
#[test]
#[ignore = "needs a release build"]
fn the_demo_leaves_nothing_behind() {
    let names = ["--bin", "healthport", "--example", "demo"];
    cargo(&[&["build", "--release", "--locked"][..], &names].concat());
    let mut command = Command::new("target/release/examples/demo");
    let command = command.current_dir(ROOT).stdout(Stdio::piped());
    let mut demo = command.spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("healthport: port open on ")));
    let healthport = proc::children(demo.id());
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert_eq!(healthport.len(), 1);
    eventually("healthport ends", || {
        proc::status(healthport[0], "VmRSS").is_none()
    });
}
