//! What CI can see of tests/lab/ipvs.sh, which needs a scratch host: its load counts what
//! happened.

use std::process::Command;

use crate::common::{Service, own_address, tool};

/// Every connection ends in the right column, and none in two.
#[test]
#[ignore = "needs python3"]
fn the_load_counts_what_became_of_every_connection() {
    let address = own_address();
    let services = [1, 2, 3, 4, 5].map(|port| Service::new((address, port)));
    services[0].says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    services[1].says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    services[2].says("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok\n");
    services[3].does(drop);
    services[4].hangs();

    // Forty source ports in all: they come round again. 0: the kernel chooses.
    let wanted = [
        ("whole", "answered", 40),
        ("wrong", "wrong", 0),
        ("short", "reset", 40),
        ("reset", "reset", 0),
        ("silent", "timed-out", 0),
        ("refused", "refused", 0),
    ];
    let mut lines = String::new();
    for (port, (name, _, ports)) in (1..).zip(wanted) {
        lines += &format!("{name} 127.0.1 {address}:{port} {ports}\n");
    }
    let load = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/ipvs/load.py");
    // On a busy VM three answers once took more than 2 s.
    let mut command = Command::new("timeout");
    command.args(["--preserve-status", "8", "python3", load, "10", "5"]);
    let (ok, table) = tool(&mut command, &lines);
    assert!(ok && table.starts_with("started\n"), "{table}");
    assert_eq!(table.lines().count(), 1 + wanted.len(), "{table}");
    for (row, (name, wanted, _)) in table.lines().skip(1).zip(wanted) {
        let cells: Vec<_> = row.split('\t').collect();
        let lost: u32 = cells[1].parse().unwrap();
        let is_right = match wanted {
            "answered" => lost == 0 && cells[2].starts_with("0 of ") && cells[2] != "0 of 0",
            _ => lost >= 10 && cells[2] == format!("**{lost}** of {lost} ({lost} {wanted})"),
        };
        assert!(cells[0] == name && is_right, "{row}");
    }
}
