//! End to end with real parts: HAProxy as the service (traffic on 80, a health
//! listener on 1936 that can be switched), HAProxy as the layer-4 switch that
//! checks nothing but healthport's TCP port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{BINARY, Healthport, PATIENCE, eventually, own_address};

/// A running HAProxy with a stats socket. It is killed when the test ends.
struct Haproxy {
    child: Child,
    folder: PathBuf,
}

impl Haproxy {
    fn start(name: &str, address: IpAddr, config: &str) -> Haproxy {
        let folder = std::env::temp_dir().join(format!("healthport-{address}-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let global = format!("global\n stats socket {} level admin\n", socket.display());
        std::fs::write(folder.join("config"), global + config).unwrap();
        let mut command = Command::new("haproxy");
        command
            .arg("-db")
            .arg("-f")
            .arg(folder.join("config"))
            .stdin(Stdio::null());
        let child = command
            .spawn()
            .expect("haproxy is missing: apt-get install haproxy");
        let haproxy = Haproxy { child, folder };
        eventually("HAProxy's stats socket", || {
            UnixStream::connect(&socket).is_ok()
        });
        haproxy
    }

    fn ask(&self, command: &str) -> String {
        let mut socket =
            UnixStream::connect(self.folder.join("socket")).expect("HAProxy's stats socket");
        writeln!(socket, "{command}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What it believes of its server: UP, DOWN, or on the way "UP 1/3".
    fn belief(&self) -> String {
        let table = self.ask("show stat");
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split(',').collect())
            .collect();
        let status = rows[0]
            .iter()
            .position(|&column| column == "status")
            .expect("a status column");
        let server = rows
            .iter()
            .find(|row| row.get(1) == Some(&"node"))
            .expect("a server");
        server[status].to_string()
    }

    fn believes(&self, status: &str) {
        eventually(&format!("the switch says {status}"), || {
            self.belief() == status
        });
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a client of the switch gets; nothing if it is sent away.
fn get(address: IpAddr, port: u16) -> String {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect_timeout(&(address, port).into(), PATIENCE) else {
        return answer;
    };
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_layer_4_switch_sees_layer_7_readiness() {
    let node = own_address();
    // Ready is whether the backend has a server in use: the stats socket takes it
    // out and in. Port 80 accepts all the while, as a draining router's does.
    let service = Haproxy::start(
        "service",
        node,
        &format!(
            "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n\
         frontend traffic\n bind {node}:80\n http-request return status 200 content-type text/plain string Hello\n\
         frontend health\n bind {node}:1936\n acl ready nbsrv(app) gt 0\n\
         \x20http-request return status 200 content-type text/plain string ok if ready {{ path /healthz/ready }}\n\
         \x20http-request return status 500 content-type text/plain string failed\n\
         backend app\n server one {node}:80\n"
        ),
    );
    let switch = Haproxy::start(
        "switch",
        node,
        &format!(
            "defaults\n mode tcp\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n\
         listen switch\n bind {node}:8080\n server node {node}:80 check port 18898 inter 100ms rise 2 fall 3\n"
        ),
    );
    service.ask("disable server app/one");

    let mut command = Command::new(BINARY);
    command.args([
        "--url",
        &format!("http://{node}:1936/healthz/ready"),
        "--interval",
        "50ms",
    ]);
    command
        .args(["--listen", &format!("{node}:18898")])
        .stderr(Stdio::piped());
    let mut healthport = Healthport::spawn(node, &mut command);
    healthport.says("port closed: answered 500, expected 200");
    switch.believes("DOWN");
    assert!(
        get(node, 80).ends_with("Hello"),
        "the traffic port says nothing of it"
    );
    assert_eq!(get(node, 8080), "");

    for _ in 0..2 {
        service.ask("enable server app/one");
        switch.believes("UP");
        assert!(get(node, 8080).ends_with("Hello"));
        service.ask("disable server app/one");
        switch.believes("DOWN");
        assert_eq!(get(node, 8080), "");
    }
    service.ask("enable server app/one");
    switch.believes("UP");
    healthport.child.kill().unwrap();
    switch.believes("DOWN");
}
