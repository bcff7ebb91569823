//! What CI can see of tests/ipvs.sh, which needs a scratch host: its load counts
//! what happened, and its page is its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Service, eventually, own_address};

/// Every connection ends in the right column, and none in two.
#[test]
#[ignore = "needs python3"]
fn the_load_counts_what_became_of_every_connection() {
    let address = own_address();
    let service = |port| Service::new((address, port));
    let (whole, wrong, short, reset, silent) =
        (service(1), service(2), service(3), service(4), service(5));
    whole.says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    wrong.says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    short.says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok\n");
    reset.does(drop);
    silent.hangs();

    let load = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipvs/load.py");
    // It ends with the test, also with one that fails. On a busy VM
    // three answers once took more than 2 s.
    let mut load = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "python3", load, "10", "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the load");
    let names = ["whole", "wrong", "short", "reset", "silent", "refused"];
    let mut lines = String::new();
    for (port, name) in (1..).zip(names) {
        // Forty source ports in all: they come round again. 0: the kernel chooses.
        let ports = if ["whole", "short"].contains(&name) {
            40
        } else {
            0
        };
        lines += &format!("{name} 127.0.1 {address}:{port} {ports}\n");
    }
    let mut stdin = load.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let mut output = BufReader::new(load.stdout.take().unwrap());
    let mut started = String::new();
    output.read_line(&mut started).unwrap();
    assert_eq!(started, "started\n");
    let services = [&whole, &wrong, &short, &reset, &silent];
    eventually("every service was asked", || {
        services.iter().all(|service| service.connections() >= 50)
    });
    kill_process(Pid::from_child(&load), Signal::TERM).unwrap();
    let mut table = String::new();
    output.read_to_string(&mut table).unwrap();
    assert!(load.wait().unwrap().success());

    let columns = ["answered", "wrong", "refused", "reset", "timed out"];
    let wanted = [
        "answered",
        "wrong",
        "reset",
        "reset",
        "timed out",
        "refused",
    ];
    for ((row, name), wanted) in table.lines().zip(names).zip(wanted) {
        let cells: Vec<_> = row.split('\t').collect();
        let count = |cell: usize| cells[cell].parse::<usize>().unwrap();
        assert_eq!(cells[0], name);
        assert!(count(1) >= 10, "{row}");
        let opened = if wanted == "refused" { 0 } else { count(1) };
        assert_eq!(count(2), opened, "{row}");
        for (cell, column) in (3..).zip(columns) {
            let expected = if column == wanted { count(1) } else { 0 };
            assert_eq!(count(cell), expected, "{column}: {row}");
        }
    }
    assert_eq!(table.lines().count(), names.len(), "{table}");
}

/// The page has every experiment of the script, with its command and the table
/// that it prints.
#[test]
fn the_page_has_every_experiment() {
    let page = include_str!("../lab/README.md");
    let script = include_str!("../ipvs.sh");
    let help = script.lines().take_while(|line| line.starts_with('#'));
    let names: Vec<_> = help
        .filter_map(|line| line.strip_prefix("#   "))
        .filter(|line| line.starts_with(|c: char| c.is_lowercase()))
        .map(|line| line.split([' ', ':']).next().unwrap())
        .filter(|word| *word != "cargo")
        .collect();
    assert_eq!(names, ["checks", "policies", "closed", "vrrp"]);
    for name in names {
        let command = format!("    tests/ipvs.sh {name}\n");
        assert!(page.contains(&command), "{command}");
    }
    let heads = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("echo \"| "));
    let heads: Vec<_> = heads.filter(|head| !head.contains('$')).collect();
    assert!(heads.len() >= 2, "{heads:?}");
    for head in heads {
        let head = head.trim_end_matches('"');
        assert!(page.contains(head), "{head}");
    }
}
