//! What is installed with the binary, without a host to install it on: the unit
//! is clean and confined, the options are accepted, the numbers agree.
//! `tests/systemd.sh` tries it for real.

use std::fs;
use std::path::Path;
use std::process::Command;

use regex_lite::Regex;

use crate::common::{BINARY, Folder, tool};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What `systemd-analyze verify` says of the units, with `more` at the end of the first.
fn verify(more: &str) -> (bool, String) {
    let folder = Folder::new();
    // It wants the binary to be there.
    let start = format!("\nExecStart={BINARY} ");
    let unit = read("systemd/healthport@.service").replace("\nExecStart=healthport ", &start);
    let path = folder.file("healthport@router.service");
    fs::write(&path, unit + more).unwrap();
    let drop_ins = folder.file("healthport@router.service.d");
    fs::create_dir(&drop_ins).unwrap();
    let drop_in = drop_ins.join("balancer-only.conf");
    fs::write(drop_in, read("systemd/balancer-only.conf")).unwrap();
    let lead = folder.file("healthport-lead@router.service");
    fs::write(&lead, read("systemd/healthport-lead@.service")).unwrap();
    let mut command = Command::new("systemd-analyze");
    // What it says of other packages' units, which it loads too, is not our fault.
    command.args(["verify", "--man=no", "--recursive-errors=no"]);
    tool(command.args([&path, &lead]), "")
}

#[test]
#[ignore = "needs systemd-analyze"]
fn verify_is_clean() {
    let (clean, said) = verify("");
    assert!(clean, "{said}");
    let (clean, said) = verify("[Service]\nBogus=1\n");
    assert!(!clean && said.contains("Bogus"), "it sees no nonsense");
}

#[test]
#[ignore = "needs systemd-analyze"]
fn exposure_is_at_most_1_1() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/healthport@.service");
    let mut command = Command::new("systemd-analyze");
    let command = command.args(["security", "--offline=true", "--no-pager", unit]);
    let (_, said) = tool(command, "");
    let level = said.split_once("Overall exposure level for healthport@");
    let level = level.and_then(|(_, level)| level.split(' ').nth(1)?.parse::<f64>().ok());
    let level = level.unwrap_or_else(|| panic!("no level in {said}"));
    assert!(level <= 1.1, "{said}");
}

/// What follows `key` at the beginning of a line: of the unit, or of --check-config.
fn setting<'a>(text: &'a str, key: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.unwrap_or_else(|| panic!("no {key} in {text}")).trim()
}

fn of_unit(key: &str) -> String {
    setting(&read("systemd/healthport@.service"), key).to_string()
}

/// Runs the binary with the HEALTHPORT_OPTS that `assignment` sets. The shell
/// reads quotes and continued lines as systemd does.
fn check_config(assignment: &str) -> (bool, String) {
    let script = format!("{assignment}\neval exec '\"$0\"' \"$HEALTHPORT_OPTS\" --check-config");
    tool(Command::new("sh").args(["-euc", &script, BINARY]), "")
}

/// What the options are until the file of the instance sets them: a usage error
/// that names it.
#[test]
fn an_instance_without_its_file_does_not_start() {
    let until_then = of_unit("Environment=").replace("%i", "typo");
    let (ok, said) = check_config(&until_then.replacen('"', "", 1).replacen('=', "=\"", 1));
    assert!(!ok);
    let missing = "\"/etc/healthport/typo.conf is missing or sets no HEALTHPORT_OPTS\"";
    assert!(said.contains(missing), "{said}");
    assert!(of_unit("RestartPreventExitStatus=").starts_with("64 "));
    // The file is read later, and what it sets counts.
    assert_eq!(of_unit("EnvironmentFile="), "-/etc/healthport/%i.conf");
}

fn seconds(text: &str) -> f64 {
    text.strip_suffix('s').unwrap().parse().unwrap()
}

/// SIGKILL ends the lease's thread, and a main thread that waits for a disk keeps the port:
/// the lease must come before any kill.
#[test]
fn lease_ends_before_systemd_kills() {
    let (_, settings) = check_config("HEALTHPORT_OPTS=");
    let lease = seconds(setting(&settings, "max-age "));
    for kill in ["WatchdogSec=", "TimeoutStopSec="] {
        // A second for the lease to be seen.
        assert!(lease + 1.0 < seconds(&of_unit(kill)), "{kill}: {lease}");
    }
    // Without these two, systemd would first write a core dump.
    assert_eq!(of_unit("WatchdogSignal="), "SIGKILL");
    assert_eq!(of_unit("LimitCORE="), "0");
}

#[test]
fn the_options_that_come_along() {
    let range = of_unit("SocketBindAllow=tcp:");
    let nft = read("systemd/healthport.nft");
    let ports = format!("define ports = {range}\n");
    assert!(nft.contains(&ports), "{ports}");
    let ends: Vec<u16> = range.split('-').map(|port| port.parse().unwrap()).collect();

    for (name, url, port, hang) in [
        ("router", "1936/healthz/ready", 18898, "21s"),
        ("api", "6080/readyz", 18899, "7s"),
        ("mcs", "22624/healthz", 18900, "7s"),
    ] {
        let file = read(&format!("systemd/{name}.conf"));
        let (ok, settings) = check_config(&file);
        assert!(ok, "{name}.conf: {settings}");
        let url = format!("http://localhost:{url}");
        assert_eq!(setting(&settings, "url "), url);
        assert_eq!(setting(&settings, "listen "), format!("0.0.0.0:{port}"));
        assert!((ends[0]..=ends[1]).contains(&port), "{name}.conf: {port}");
        let drain_file = format!("/etc/healthport/{name}.drain");
        assert_eq!(setting(&settings, "drain-file "), drain_file);
        // What the comments say of them.
        assert_eq!(setting(&settings, "closes 1.1s"), "after a bad answer");
        let hang = format!("closes {hang}");
        assert_eq!(setting(&settings, &hang), "after a hang");

        // The defaults are the recommendation: what is named differs from them.
        let (_, options) = file.split_once("HEALTHPORT_OPTS=\"").unwrap();
        let options = options.replace("\\\n", "").replace(['"', '\n'], "");
        let words: Vec<_> = options.split(' ').collect();
        for option in words.chunks(2).map(|pair| pair.join(" ")) {
            let others = options.replacen(&option, "", 1);
            let (_, without) = check_config(&format!("HEALTHPORT_OPTS='{others}'"));
            assert_ne!(without, settings, "{name}.conf: {option} is the default");
        }
    }
}

/// The kernel takes the list, and it has every port that the options name and
/// the unit allows.
#[test]
#[ignore = "needs unshare"]
fn the_kernel_reserves_the_ports() {
    let sysctl = read("systemd/healthport.sysctl.conf");
    let list = setting(&sysctl, "net.ipv4.ip_local_reserved_ports = ");
    let range = of_unit("SocketBindAllow=tcp:");
    assert!(list.split(',').any(|part| part == range), "{list}");
    for name in ["router", "api", "mcs"] {
        let (_, settings) = check_config(&read(&format!("systemd/{name}.conf")));
        let url = setting(&settings, "url ");
        let port = url.split(['/', ':']).nth(4).unwrap();
        assert!(list.split(',').any(|part| part == port), "{list}: {port}");
    }
    let script = format!(
        "echo {list} >/proc/sys/net/ipv4/ip_local_reserved_ports
        cat /proc/sys/net/ipv4/ip_local_reserved_ports"
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-euc", &script]);
    assert_eq!(tool(&mut command, ""), (true, format!("{list}\n")));
}

/// Every HEALTHPORT_OPTS that somebody may copy from the documents.
#[test]
fn the_options_in_the_documents() {
    for document in ["systemd/README.md", "man/healthport.8"] {
        let text = read(document).replace("\\e", "\\");
        let example = Regex::new("(?m)^HEALTHPORT_OPTS=\"[^\"]*\"").unwrap();
        assert!(
            example.is_match(&text),
            "{document} has no example any more"
        );
        for example in example.find_iter(&text) {
            let (ok, said) = check_config(example.as_str());
            assert!(ok, "{document}: {}: {said}", example.as_str());
        }
    }
}

#[test]
#[ignore = "needs nft and unshare"]
fn nftables_takes_the_rules() {
    let nft = |rules: &Path| {
        let mut command = Command::new("unshare");
        // A network of its own, for which root is not needed, nor the real one.
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let command = command.args(["--net", "nft", "--check", "--file"]);
        tool(command.arg(rules), "")
    };
    let folder = Folder::new();
    let rules = folder.file("healthport.nft");
    fs::write(&rules, read("systemd/healthport.nft")).unwrap();
    assert_eq!(nft(&rules), (true, String::new()));
    fs::write(&rules, read("systemd/healthport.nft") + "nonsense\n").unwrap();
    assert!(!nft(&rules).0, "it does not even see nonsense");
}
