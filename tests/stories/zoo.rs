//! The zoo, given to the real binary, to curl and to HAProxy's httpchk.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::common::zoo::{GOOD, LATE, Way, ZOO};
use crate::common::{BINARY, Folder, Service, eventually, finish, own_address};

/// A service that gives one answer.
fn service(address: IpAddr, way: Way) -> Service {
    let service = Service::new((address, 0));
    if let Way::Gone = way {
        service.is_gone();
    }
    service.does(move |mut stream| way.give(&mut stream));
    service
}

/// Does the same with all, eight at a time. Returns the results in their order.
fn for_each<I: Sync, T: Send>(items: &[I], run: impl Fn(&I) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let part = |items| scope.spawn(move || Vec::from_iter(<[I]>::iter(items).map(run)));
        let parts: Vec<_> = items.chunks(items.len().div_ceil(8)).map(part).collect();
        let results = parts.into_iter().map(|part| part.join().expect("no panic"));
        results.flatten().collect()
    })
}

#[test]
fn every_answer_probed_once_is_what_the_zoo_says() {
    let address = own_address();
    let wrong = for_each(ZOO, |&(way, sentence, ..)| {
        let service = service(address, way);
        let timeout = if sentence == LATE { "-t300ms" } else { "-t5s" };
        let (code, stdout, stderr) =
            finish(Command::new(BINARY).args(["--once", timeout, "--url", &service.url()]));
        let result = match sentence {
            GOOD => "ok",
            LATE => "timeout",
            _ if sentence.starts_with("answered") => "status",
            _ if matches!(way, Way::Gone) => "connect",
            _ => "protocol",
        };
        let line = format!("{result}: {} {sentence}", service.url());
        let is_right = stdout.starts_with(&line)
            && stdout.lines().count() == 1
            && code == Some(i32::from(sentence != GOOD))
            && stderr.is_empty();
        (!is_right).then(|| format!("{way:?} is not {sentence:?} but {stdout}{stderr}"))
    });
    let wrong: Vec<_> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the curl and the HAProxy of each release make of an answer.
fn releases(tools: &'static str) -> impl Iterator<Item = &'static str> {
    (0..tools.len()).step_by(2).map(|at| &tools[at..at + 2])
}

/// Whoever sees an answer with curl, and a switch that reads it, must not see another
/// verdict than healthport's without a reason.
#[test]
fn what_curl_and_haproxy_take_is_good_and_differences_have_reasons() {
    for (way, sentence, tools, reason) in ZOO {
        let is_good = *sentence == GOOD;
        let expected = if is_good { "++" } else { "--" };
        assert!(
            is_good || releases(tools).all(|pair| pair != "++"),
            "{way:?}: both take it"
        );
        let agree = releases(tools).all(|pair| pair == expected);
        assert_eq!(reason.is_empty(), agree, "{way:?}: {tools} {reason:?}");
    }
}

/// The code of each check, as in "L7OK"; "INI" until the first has ended.
fn codes_of_checks(socket: &Path) -> io::Result<Vec<String>> {
    let mut stats = UnixStream::connect(socket)?;
    let mut text = String::new();
    stats.write_all(b"show stat\n")?;
    stats.read_to_string(&mut text)?;
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("the names of the columns");
    let column = |name| names.iter().position(|column| *column == name).unwrap();
    let (server, code) = (column("svname"), column("check_status"));
    let servers = lines.filter(|line| line.len() > code && line[server].parse::<u16>().is_ok());
    // A `* ` stands before the last code while another check is under way.
    let codes = servers.map(|line| line[code].trim_start_matches("* ").to_string());
    Ok(codes.collect())
}

#[test]
#[ignore = "needs curl and haproxy"]
fn every_answer_given_to_curl_and_haproxy_is_what_the_zoo_says() {
    let address = own_address();
    let animals = ZOO.iter().map(|animal| service(address, animal.0));
    let services: Vec<_> = animals.collect();
    let urls: Vec<_> = services.iter().map(Service::url).collect();

    let folder = Folder::new();
    let (config, socket) = (folder.file("config"), folder.file("socket"));
    let mut text = format!(
        "global\n stats socket {}\ndefaults\n mode http\n timeout connect 2s\n timeout client 2s\n \
         timeout server 2s\n timeout check 2s\nbackend zoo\n option httpchk GET /\n \
         http-check expect status 200\n",
        socket.display()
    );
    for (number, service) in services.iter().enumerate() {
        // HAProxy spreads the first checks over the interval.
        text += &format!(" server {number} {} check inter 2s\n", service.address);
    }
    std::fs::write(&config, text).unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f"]).arg(&config);
    let haproxy = haproxy.stdout(Stdio::null()).stderr(Stdio::null());
    let mut haproxy = haproxy.spawn().expect("run haproxy");

    let mut codes = Vec::new();
    eventually("every answer is checked", || {
        codes = codes_of_checks(&socket).unwrap_or_default();
        codes.len() == ZOO.len() && codes.iter().all(|code| code != "INI")
    });
    let _ = (haproxy.kill(), haproxy.wait());

    let curl = |url: &String| {
        let args = ["-s", "-m2", "-o/dev/null", "-w%{http_code}", url];
        let (code, stdout, _) = finish(Command::new("curl").args(args));
        code == Some(0) && stdout == "200"
    };
    let curls = for_each(&urls, curl);
    let sign = |good| if good { '+' } else { '-' };
    let mut wrong = Vec::new();
    for ((number, (way, _, tools, _)), (curl, code)) in
        ZOO.iter().enumerate().zip(curls.iter().zip(&codes))
    {
        let seen = format!("{}{}", sign(*curl), sign(code == "L7OK"));
        if releases(tools).all(|pair| pair != seen) {
            wrong.push(format!("{number}: {way:?} is {seen} ({code}), not {tools}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
