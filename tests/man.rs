//! The man page is the reference, so it must not drift: it agrees with the rows of
//! options.rs on names, defaults and ranges, with main.rs on the exit codes, and with the
//! source on every message, each in both directions; and it renders in silence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use healthport::options::ROWS;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/healthport.8");

fn page() -> String {
    fs::read_to_string(PAGE).unwrap()
}

/// The lines of one section.
fn section(name: &str) -> String {
    let page = page();
    let (_, rest) = page
        .split_once(&format!(".Sh {name}\n"))
        .unwrap_or_else(|| panic!("no section {name}"));
    rest.split("\n.Sh ").next().unwrap().to_string()
}

/// Runs a tool on `input` and returns what it printed, on both channels.
fn tool(package: &str, command: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {}: {error}; first: apt-get install {package}",
                command[0]
            )
        });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What is said of one option.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    short: Option<String>,
    argument: String,
    default: Option<String>,
    /// As in `1 to 100`.
    ranges: BTreeSet<String>,
}

/// `10ms to 60m`, `1 to 100`: what stands left and right of every "to" between
/// two numbers.
fn ranges(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    words
        .windows(3)
        .filter(|w| w[1] == "to" && number(w[0]) && number(w[2]))
        .map(|w| format!("{} to {}", w[0], w[2].trim_end_matches(['.', ',', ';'])))
        .collect()
}

/// The options of the program.
fn of_rows() -> BTreeMap<String, Told> {
    let told = ROWS.iter().map(|row| {
        let help = row.help();
        let (_, argument) = row.names.split_once(row.name()).unwrap();
        let default = help
            .strip_suffix(']')
            .and_then(|help| help.rsplit_once('['));
        let told = Told {
            short: row
                .names
                .split_once(", ")
                .map(|(short, _)| short[1..].to_string()),
            // The quotes are the shell's.
            argument: argument.trim_matches([' ', '\'']).to_string(),
            default: default.map(|(_, default)| default.to_string()),
            ranges: ranges(&format!("{} {}", help, row.allowed())),
        };
        (row.name().to_string(), told)
    });
    told.collect()
}

/// The options of the page: `.It Fl u , Fl Fl url Ar URL`, then prose.
fn of_page() -> BTreeMap<String, Told> {
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
            let told = Told {
                short,
                argument,
                default,
                ranges: ranges(body),
            };
            (name.to_string(), told)
        })
        .collect()
}

#[test]
fn options_are_those_of_the_program() {
    let mut page = of_page();
    for (name, told) in &of_rows() {
        let on_page = page
            .remove(name)
            .unwrap_or_else(|| panic!("the page lacks --{name}"));
        let Told { ranges, .. } = told;
        let missing: Vec<_> = ranges.difference(&on_page.ranges).collect();
        assert!(missing.is_empty(), "--{name}: the page lacks {missing:?}");
        // The page may say more ranges than the short text has room for.
        let on_page = Told {
            ranges: ranges.clone(),
            ..on_page
        };
        assert_eq!(told, &on_page, "--{name}: the row (left), page (right)");
    }
    assert!(
        page.is_empty(),
        "the program lacks {:?}",
        page.keys().collect::<Vec<_>>()
    );
}

#[test]
fn exit_codes_are_those_of_main() {
    let main = include_str!("../src/main.rs");
    let mut of_main: BTreeSet<u8> = main
        .lines()
        .filter_map(|line| line.strip_prefix("const ")?.split_once(": u8 = "))
        .map(|(_, value)| value.trim_end_matches(';').parse().unwrap())
        .collect();
    assert_eq!(of_main.len(), 3, "cannot read main.rs any more");
    of_main.insert(0);
    let of_page: BTreeSet<u8> = section("EXIT STATUS")
        .lines()
        .filter_map(|line| line.strip_prefix(".It "))
        .map(|value| value.parse().unwrap())
        .collect();
    assert_eq!(of_page, of_main, "page (left), main.rs (right)");
}

/// All of src/, with strings that go on in the next line joined.
fn source() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut source = String::new();
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        // A module's own tests quote messages too, of which none is the program's.
        source += text.split("#[cfg(test)]").next().unwrap();
    }
    // The one word that is put in by a condition.
    let source = source.replace("{still}", "still ");
    let mut lines = source.split("\\\n");
    let mut joined = lines.next().unwrap().to_string();
    for line in lines {
        joined += line.trim_start();
    }
    joined
}

/// The messages of DIAGNOSTICS that are ours, systemd's come last.
fn messages() -> Vec<String> {
    let diagnostics = section("DIAGNOSTICS");
    let ours = diagnostics.split(".Ss Of systemd").next().unwrap();
    ours.lines()
        .filter_map(|line| line.strip_prefix(".It Sy \"")?.strip_suffix('"'))
        .map(str::to_string)
        .collect()
}

/// Words in capitals stand for what varies; what is between them must be what
/// the program says.
#[test]
fn messages_are_those_of_the_source() {
    let source = source();
    let messages = messages();
    assert!(messages.len() > 30, "cannot read DIAGNOSTICS any more");
    // The last is the standard library's.
    for message in messages.iter().filter(|m| !m.starts_with("panicked at")) {
        // Some are put together at a colon.
        for fixed in message.split(|c: char| c.is_ascii_uppercase() || c == ':') {
            let fixed = fixed.trim_matches(|c: char| !c.is_ascii_lowercase());
            assert!(
                source.contains(fixed),
                "{message:?}: {fixed:?} is not in src/"
            );
        }
    }
}

/// Everything that cannot be done is on the page.
#[test]
fn what_cannot_be_done_is_on_the_page() {
    let page = page();
    let source = source();
    let mut found = 0;
    for line in source.lines().filter(|line| !line.trim().starts_with("//")) {
        for rest in line.split("cannot ").skip(1) {
            let end = rest.find(['{', '"', ':', '-']).unwrap_or(rest.len());
            let sentence = format!("cannot {}", rest[..end].trim_end());
            assert!(page.contains(&sentence), "the page lacks {sentence:?}");
            found += 1;
        }
    }
    assert!(found >= 8, "cannot read the source any more: {found}");
}

#[test]
fn renders_in_silence() {
    for (package, command) in [
        ("mandoc", &["mandoc", "-T", "lint", "-W", "warning"][..]),
        ("groff", &["groff", "-mdoc", "-Tutf8", "-ww", "-z"]),
    ] {
        let (ok, said) = tool(package, command, &page());
        assert!(ok && said.is_empty(), "{command:?} says: {said}");
    }
    // And the tools do complain.
    let (_, said) = tool("groff", &["groff", "-mdoc", "-Tutf8", "-ww", "-z"], ".Zz");
    assert!(!said.is_empty(), "groff is silent on nonsense");
}

#[test]
fn fits_80_columns() {
    let (_, text) = tool("mandoc", &["mandoc", "-T", "ascii"], &page());
    for line in text.lines() {
        // Bold is a letter, a backspace and the letter again.
        let width = line.chars().count() - 2 * line.matches('\u{8}').count();
        assert!(width <= 80, "{width} columns: {line}");
    }
}

/// The text of the example under the heading.
fn example(heading: &str) -> String {
    let examples = section("EXAMPLES");
    let (_, rest) = examples
        .split_once(&format!(".Ss {heading}\n"))
        .unwrap_or_else(|| panic!("no example {heading}"));
    let (_, rest) = rest.split_once(".Bd -literal -offset 2n\n").unwrap();
    rest.split(".Ed").next().unwrap().replace("\\e", "\\")
}

#[test]
fn haproxy_takes_the_example() {
    let path = std::env::temp_dir().join(format!("healthport-man-{}.cfg", std::process::id()));
    fs::write(&path, example("HAProxy as the switch")).unwrap();
    let (ok, said) = tool(
        "haproxy",
        &["haproxy", "-c", "-f", path.to_str().unwrap()],
        "",
    );
    fs::remove_file(&path).unwrap();
    assert!(ok && !said.contains("WARNING"), "haproxy says: {said}");
}
