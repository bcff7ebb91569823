//! The man page is the reference, so it must not drift. It agrees, in both directions,
//! with --help (names, defaults, ranges), with /metrics (names), with
//! main.rs (exit codes) and with the source (messages). And it renders without a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::common::man::{self, section};
use crate::common::{help, tool};
use healthport::metrics::Metrics;
use healthport::ports::Ports;

const PAGE: &str = include_str!("../../man/healthport.8");

/// What the page or the program says of one option.
#[derive(Debug, PartialEq, Eq)]
struct OptionEntry {
    short: Option<String>,
    argument: String,
    default: Option<String>,
    /// As in `1 to 100`.
    ranges: BTreeSet<String>,
}

/// The options of the program.
fn of_help() -> BTreeMap<String, OptionEntry> {
    let entries = help::entries().into_iter().map(|option| {
        let entry = OptionEntry {
            short: option.short.as_ref().map(|short| short[1..].to_string()),
            argument: option.argument.clone(),
            default: option.default().map(str::to_string),
            ranges: option.ranges().into_iter().collect(),
        };
        (option.name, entry)
    });
    entries.collect()
}

/// The options of the page: `.It Fl u , Fl Fl url Ar URL`, then prose.
fn of_page() -> BTreeMap<String, OptionEntry> {
    let options = section("OPTIONS");
    options
        .split("\n.It ")
        .skip(1)
        .map(|entry| {
            let (head, body) = entry.split_once('\n').unwrap();
            let (short, long) = match head.split_once(" , Fl Fl ") {
                Some((short, long)) => (Some(short.trim_start_matches("Fl ").to_string()), long),
                None => (None, head.trim_start_matches("Fl Fl ")),
            };
            let (name, argument) = long.split_once(" Ar ").unwrap_or((long, ""));
            let argument = argument.replace(" : Ns Ar ", ":").replace(" : Ar ", ": ");
            let default = body.split_once("The default is\n.Ql ").map(|(_, rest)| {
                let line = rest.lines().next().unwrap();
                line.strip_suffix(" .").unwrap_or(line).to_string()
            });
            let entry = OptionEntry {
                short,
                argument,
                default,
                ranges: help::ranges(body).into_iter().collect(),
            };
            (name.to_string(), entry)
        })
        .collect()
}

#[test]
fn options_are_those_of_the_program() {
    let mut page = of_page();
    for (name, entry) in &of_help() {
        let on_page = page
            .remove(name)
            .unwrap_or_else(|| panic!("the page lacks --{name}"));
        let OptionEntry { ranges, .. } = entry;
        let missing: Vec<_> = ranges.difference(&on_page.ranges).collect();
        assert!(missing.is_empty(), "--{name}: the page lacks {missing:?}");
        // The page may say more ranges than the short text has room for.
        let on_page = OptionEntry {
            ranges: ranges.clone(),
            ..on_page
        };
        assert_eq!(entry, &on_page, "--{name}: --help (left), page (right)");
    }
    assert!(
        page.is_empty(),
        "the program lacks {:?}",
        page.keys().collect::<Vec<_>>()
    );
}

#[test]
fn exit_codes_are_those_of_main() {
    let source = [
        include_str!("../../src/main.rs"),
        include_str!("../../src/journal.rs"),
    ];
    let mut of_main: BTreeSet<u8> = source
        .iter()
        .flat_map(|file| file.lines())
        .filter_map(|line| line.split_once("const ")?.1.split_once(": u8 = "))
        .map(|(_, value)| value.trim_end_matches(';').parse().unwrap())
        .collect();
    assert_eq!(of_main.len(), 3, "cannot read the source any more");
    of_main.insert(0);
    let of_page: BTreeSet<u8> = section("EXIT STATUS")
        .lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .map(|value| value.parse().unwrap())
        .collect();
    assert_eq!(of_page, of_main, "page (left), program (right)");
}

/// Names with the key of their label, as in `healthport_transitions_total{to=`.
#[test]
fn metrics_are_those_of_the_program() {
    let metrics = Metrics::new(&Ports::new(&[], Duration::ZERO)).text();
    let of_program: BTreeSet<String> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| {
            let name = line.split(' ').next().unwrap();
            let label = metrics.split_once(&format!("\n{name}{{"));
            label.map_or(name.to_string(), |(_, rest)| {
                format!("{name}{{{}=", rest.split('=').next().unwrap())
            })
        })
        .collect();
    let of_page: BTreeSet<String> = section("METRICS")
        .lines()
        .filter_map(|line| line.strip_prefix(".It Va "))
        .map(|line| line.replace(" Ns Li ", "").replace("...}", ""))
        .collect();
    assert_eq!(of_page, of_program, "page (left), /metrics (right)");
}

/// The other direction: `common::man` holds every line that a story sees against the page.
/// Words in capitals stand for what varies; the text between them must be in the program.
#[test]
fn messages_are_those_of_the_source() {
    let mut source = String::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let lines = text.split("#[cfg(test)]").next().unwrap().lines();
        for line in lines.map(str::trim).filter(|line| !line.starts_with("//")) {
            // A backslash continues a literal.
            source += line.strip_suffix('\\').unwrap_or(line);
        }
    }
    let source = source
        .replace("{still}", "still ")
        .replace("{compressed}", "");
    let messages = man::messages(&[
        "Of the port",
        "Reasons",
        "Of the program",
        "Of a start that failed",
        "Of the end",
    ]);
    assert!(messages.len() > 60, "cannot read DIAGNOSTICS any more");
    // The last is the standard library's.
    for message in messages.iter().filter(|m| !m.starts_with("panicked at")) {
        // The program joins some of them by a comma, a colon or a semicolon.
        for fixed in message.split(|c: char| c.is_ascii_uppercase() || ",:;".contains(c)) {
            let fixed = fixed.trim_matches(|c: char| !c.is_ascii_lowercase());
            assert!(
                source.contains(fixed),
                "{message:?}: {fixed:?} is not in src/"
            );
        }
    }
}

#[test]
fn a_line_that_the_page_lacks_is_noticed() {
    for line in [
        "port open on 127.0.0.1:1, [::1]:2: answered 200 (closed for 1m 0s)",
        "port closed: answered 500, expected 200,300-399",
        "healthport: --rise \"0\" is not allowed: it takes a whole number from 1 to 100",
    ] {
        man::explains(line);
    }
    for line in [
        "port opened on 127.0.0.1:1: answered 200 (closed for 1.0s)",
        "port open on 127.0.0.1:1: replied 200 (closed for 1.0s)",
        "port closed: answered 500 today, expected 200",
        "port closed: answered 500, expected 200 today",
        "healthport: --rise \"0\" is wrong",
    ] {
        assert!(
            std::panic::catch_unwind(|| man::explains(line)).is_err(),
            "{line}"
        );
    }
}

#[test]
#[ignore = "needs mandoc and groff"]
fn renders_in_silence() {
    let mut mandoc = Command::new("mandoc");
    let mut groff = Command::new("groff");
    mandoc.args(["-T", "lint", "-W", "warning"]);
    groff.args(["-mdoc", "-Tutf8", "-ww", "-z"]);
    for command in [&mut mandoc, &mut groff] {
        let (ok, said) = tool(command, PAGE);
        assert!(ok && said.is_empty(), "{command:?} says: {said}");
    }
    // The tools do complain if something is wrong.
    let (_, said) = tool(&mut groff, ".Zz");
    assert!(!said.is_empty(), "groff is silent on nonsense");
}

#[test]
#[ignore = "needs mandoc"]
fn fits_80_columns() {
    let (_, text) = tool(Command::new("mandoc").args(["-T", "ascii"]), PAGE);
    for line in text.lines() {
        // Bold is a letter, a backspace and the letter again.
        let width = line.chars().count() - 2 * line.matches('\u{8}').count();
        assert!(width <= 80, "{width} columns: {line}");
    }
}
