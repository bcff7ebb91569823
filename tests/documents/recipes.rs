//! man/recipes.md, held against the program, HAProxy and keepalived; and the one
//! set of numbers that every recipe gives the switch.

use std::fs;
use std::process::Command;

use crate::common::{BINARY, Folder, run, tool};
use crate::pages::blocks;

const PAGE: &str = include_str!("../../man/recipes.md");
const TIMEOUTS: &str = "defaults\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n";

#[test]
fn every_recipe_says_what_was_tried() {
    let sections = PAGE.split("\n## ");
    let recipes = sections.flat_map(|section| section.split("\n### ").skip(1));
    let says = |recipe: &&str| recipe.contains("Tried: ") || recipe.contains("Not tried here; ");
    let (tried, silent): (Vec<_>, Vec<_>) = recipes.partition(says);
    assert!(silent.is_empty(), "{silent:?}");
    assert!(tried.len() > 12, "{} recipes", tried.len());
}

#[test]
fn the_program_takes_every_command() {
    let blocks = blocks(PAGE, "sh");
    let commands = blocks.iter().flat_map(|block| block.lines());
    let commands = commands.filter_map(|line| line.strip_prefix("healthport"));
    let mut count = 0;
    for options in commands {
        let words = options.split_whitespace().chain(["--check-config"]);
        let (code, stdout, stderr) = run(&words.collect::<Vec<_>>());
        assert_eq!(code, Some(0), "healthport{options}: {stderr}");
        // A word that is taken for nothing would leave the defaults.
        for word in options
            .split_whitespace()
            .filter(|word| !word.starts_with("--"))
        {
            assert!(stdout.contains(word), "healthport{options}: {word}");
        }
        count += 1;
    }
    assert!(count > 7, "{count} commands");
}

/// The table of worst cases is the program's part, the switch's two checks and their
/// sum; and the switches that count as it does are given these numbers.
#[test]
fn the_numbers_are_one_set() {
    let (_, stdout, _) = run(&["--check-config"]);
    for (row, words) in [("says \"not ready\"", "a bad answer"), ("hangs", "a hang")] {
        let row = PAGE
            .lines()
            .find(|line| line.starts_with(&format!("| the service {row}")));
        let cells: Vec<_> = row.expect("a row").split(" | ").collect();
        let seconds = |cell: &str| {
            let number = cell.trim_end_matches(" |").trim_end_matches(" s");
            number.parse::<f64>().expect("a number of seconds")
        };
        let closes = format!("closes {}s after {words}", seconds(cells[1]));
        assert!(stdout.contains(&closes), "{closes}: {stdout}");
        assert_eq!(cells[2], "2 x 2 s");
        assert_eq!(seconds(cells[3]), seconds(cells[1]) + 4.0, "{cells:?}");
    }
    for line in [
        "check port 18898 inter 2s fall 2 rise 1\n",
        "delay_loop 2\n",
        "connect_timeout 2\n",
        "retry 1\n",
        "delay_before_retry 2\n",
        "interval=2 fails=2 passes=1;",
    ] {
        assert!(PAGE.contains(line), "{line}");
    }
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_takes_its_blocks() {
    // What the page says that the reader has: a backend named app.
    let backend = "\nbackend app\n mode http\n server app1 192.0.2.21:8080\n";
    let blocks = blocks(PAGE, "haproxy");
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let folder = Folder::new();
        let file = folder.file("config");
        fs::write(&file, format!("{TIMEOUTS}{block}{backend}")).unwrap();
        let (ok, said) = tool(Command::new("haproxy").args(["-c", "-f"]).arg(&file), "");
        assert!(ok && !said.contains("WARNING"), "{block}{said}");
    }
}

/// The recipe as it stands, in a network of its own, against the port: its checks complete
/// the handshake and are counted. Without the lines that do so, none is.
#[test]
#[ignore = "needs haproxy, ip and unshare"]
fn haproxy_recipe_is_counted() {
    const SCRIPT: &str = r#"
        ip link set lo up
        for node in 11 12 13; do ip address add 192.0.2.$node/32 dev lo; done
        "$1" --url http://127.0.0.1:8404/ready --metrics-listen 127.0.0.1:18988 &
        healthport=$!
        haproxy -db -f "$2" &
        trap 'kill $healthport $!' EXIT
        for try in $(seq 300); do
            sleep 0.1
            exec 3<>/dev/tcp/127.0.0.1/18988 || continue
            printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
            count=$(sed -n 's/^healthport_connections_total //p' <&3)
            seen=$(nstat -asz TcpExtEmbryonicRsts | awk '/^Tcp/ { print $2 }')
            [ "${count:-0}" -lt 6 ] && [ "$seen" -lt 6 ] || break
        done
        echo "$count counted, $seen half-open""#;
    let blocks = blocks(PAGE, "haproxy");
    let checks = |recipe: &str| {
        let folder = Folder::new();
        let file = folder.file("config");
        // The other block is the service, without the app that decides.
        let health = blocks[1].split("  monitor fail").next().unwrap();
        fs::write(&file, format!("{TIMEOUTS}{recipe}{health}")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "bash", "-euc", SCRIPT, "bash"]);
        let (_, said) = tool(command.arg(BINARY).arg(&file), "");
        let line = said.lines().find(|line| line.ends_with(" half-open"));
        let words: Vec<_> = line.expect(&said).split(' ').collect();
        [words[0], words[2]].map(|number| number.parse::<u32>().unwrap())
    };
    let [counted, half_open] = checks(blocks[0]);
    assert!(counted >= 6 && half_open == 0, "{counted}, {half_open}");
    let plain = blocks[0].replace("  option tcp-check\n  tcp-check connect linger\n", "");
    let [counted, half_open] = checks(&plain);
    assert!(counted == 0 && half_open >= 6, "{counted}, {half_open}");
}

/// The one for IPVS. `keepalived -t` of 2.2 kills itself over a vrrp_script that
/// another user runs.
#[test]
#[ignore = "needs keepalived"]
fn keepalived_takes_its_block() {
    let takes = |block: &str| {
        let folder = Folder::new();
        let file = folder.file("config");
        fs::write(&file, block).unwrap();
        let (ok, said) = tool(Command::new("keepalived").args(["-t", "-f"]).arg(&file), "");
        (ok && said.is_empty(), said)
    };
    let blocks = blocks(PAGE, "keepalived");
    assert!(blocks[0].starts_with("virtual_server "), "{blocks:?}");
    let (ok, said) = takes(blocks[0]);
    assert!(ok, "{said}");
    let (ok, _) = takes(&blocks[0].replace("retry", "retrry"));
    assert!(!ok, "keepalived takes nonsense");
}
