//! The man page is the reference, so it must not drift. It agrees, in both directions,
//! with --help (names, defaults, ranges), with /metrics (names), with
//! main.rs (exit codes) and with the source (messages). And it renders without a warning.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use regex_lite::Regex;

use crate::common::man::{self, section};
use crate::common::{help, tool};
use healthport::metrics::Metrics;
use healthport::ports::Ports;

const PAGE: &str = include_str!("../../man/healthport.8");

/// On the page: `.It Fl u , Fl Fl url Ar URL`, then prose.
#[test]
fn options_are_those_of_the_program() {
    let page = section("OPTIONS");
    for option in help::entries() {
        let short = option.short.as_ref();
        let short = short.map_or(String::new(), |short| format!("Fl {} , ", &short[1..]));
        let argument = option.argument.replace(": ", " : Ar ");
        let argument = Regex::new(r":\b").unwrap().replace(&argument, " : Ns Ar ");
        let head = format!("\n.It {short}Fl Fl {} Ar {argument}", option.name);
        let head = head.trim_end_matches(" Ar ");
        let entry = page.split_once(&format!("{head}\n"));
        let (_, body) = entry.unwrap_or_else(|| panic!("the page lacks {head}"));
        let body = body.split("\n.It ").next().unwrap();
        let default = body.split_once("The default is\n.Ql ").map(|(_, rest)| {
            let line = rest.lines().next().unwrap();
            line.strip_suffix(" .").unwrap_or(line)
        });
        assert_eq!(option.default(), default, "{head}: --help, page");
        // The page may say more ranges than the short text has room for.
        let on_page = help::ranges(body);
        for range in option.ranges() {
            assert!(on_page.contains(&range), "{head}: the page lacks {range}");
        }
    }
    let count = page.matches("\n.It ").count();
    assert_eq!(count, help::entries().len(), "the program lacks some");
}

/// What the first group of an expression finds.
fn found(expression: &str, text: &str) -> BTreeSet<String> {
    let expression = Regex::new(expression).unwrap();
    let found = expression.captures_iter(text);
    found.map(|found| found[1].to_string()).collect()
}

#[test]
fn exit_codes_are_those_of_main() {
    let main = include_str!("../../src/main.rs");
    let source = main.to_string() + include_str!("../../src/journal.rs");
    let mut of_main = found(r"const \w+: u8 = (\d+);", &source);
    assert_eq!(of_main.len(), 3, "cannot read the source any more");
    of_main.insert("0".to_string());
    let of_page = found(r"(?m)^\.It (\d+)$", section("EXIT STATUS"));
    assert_eq!(of_page, of_main, "page (left), program (right)");
}

/// Names with the key of their label, as in `healthport_transitions_total{to=`.
#[test]
fn metrics_are_those_of_the_program() {
    let metrics = Metrics::new(&Ports::new(&[], Duration::ZERO)).text();
    let with_label = |name: String| {
        let label = found(&format!(r"(?m)^{name}\{{(\w+)="), &metrics);
        label
            .first()
            .map_or(name.clone(), |label| format!("{name}{{{label}="))
    };
    let names = found(r"(?m)^# TYPE (\w+)", &metrics).into_iter();
    let of_program: BTreeSet<_> = names.map(with_label).collect();
    let page = section("METRICS").replace(" Ns Li ", "");
    let of_page = found(r"(?m)^\.It Va (.*?)(?:\.\.\.\})?$", &page);
    assert_eq!(of_page, of_program, "page (left), /metrics (right)");
}

/// The other direction: `common::man` holds every line that a story sees against the page.
/// The longest part without a word that varies must be in the program.
#[test]
fn messages_are_those_of_the_source() {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    let files = files.map(|path| fs::read_to_string(path).unwrap());
    // A backslash continues a literal.
    let source = files.collect::<String>().replace("\\\n", "");
    let source = source.split_whitespace().collect::<Vec<_>>().join(" ");
    let source = source.replace("{still}", "still ");
    let part = Regex::new("[a-z][a-z -]*[a-z]").unwrap();
    let messages = [man::messages("Of "), man::messages("Reasons")].concat();
    assert!(messages.len() > 60, "cannot read DIAGNOSTICS any more");
    // That of a panic is the standard library's.
    for message in messages.iter().filter(|m| !m.starts_with("panicked at")) {
        let parts = part.find_iter(message).map(|part| part.as_str());
        let longest = parts.max_by_key(|part| part.len()).unwrap();
        assert!(
            source.contains(longest),
            "{message:?}: {longest:?} is not in src/"
        );
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
