//! The man page is the reference, so it must not drift. It agrees, in both directions,
//! with --help (names, defaults, ranges), with /metrics (names), with
//! main.rs (exit codes) and with the source (every message). And it renders without a
//! warning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{Folder, help, tool};
use healthport::metrics::Metrics;
use healthport::ports::Ports;

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
    let main = include_str!("../../src/main.rs");
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

/// The string literals of src/ that a user may see, each with its file. Left out are
/// single words, and the tables and layouts of what is printed on request.
fn sentences() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sentences = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let text = fs::read_to_string(&path).unwrap();
        // A module's own tests have literals too, but the program never prints them.
        let text = text.split("#[cfg(test)]").next().unwrap();
        // In these files names, helps and headings are literals too: take only those that
        // go into format!() or Err().
        let is_table = ["config.rs", "options.rs"].contains(&name.as_str());
        for (before, literal) in literals(text) {
            let is_made = ["format!(", "Err("]
                .iter()
                .any(|call| before.ends_with(call));
            let is_sentence = literal.trim().contains(' ') && (is_made || !is_table);
            if is_sentence && name != "metrics.rs" {
                sentences.push((name.clone(), literal));
            }
        }
    }
    sentences
}

/// The literals of Rust source, unescaped, each with the code before it.
fn literals(source: &str) -> Vec<(String, String)> {
    let (mut found, mut code) = (Vec::new(), String::new());
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('/', Some('/')) => while chars.next_if(|&c| c != '\n').is_some() {},
            ('\'', _) => {
                // A character, or a lifetime, which has no closing quote.
                let character: String = chars.clone().take(3).collect();
                let length = match character.chars().collect::<Vec<_>>()[..] {
                    ['\\', _, '\''] => 3,
                    [_, '\'', ..] => 2,
                    _ => 0,
                };
                for _ in 0..length {
                    chars.next();
                }
            }
            ('"', _) => {
                let mut literal = String::new();
                while let Some(c) = chars.next_if(|&c| c != '"') {
                    match (c, chars.peek()) {
                        ('\\', Some('\n')) => {
                            while chars.next_if(|c| c.is_whitespace()).is_some() {}
                        }
                        ('\\', _) => match chars.next().unwrap() {
                            'n' | 'r' => literal.push('\n'),
                            escaped => literal.push(escaped),
                        },
                        _ => literal.push(c),
                    }
                }
                chars.next();
                found.push((code.clone(), literal));
                code.clear();
            }
            _ if !c.is_whitespace() => code.push(c),
            _ => {}
        }
    }
    found
}

/// The messages of DIAGNOSTICS that are ours; systemd's come last.
fn messages() -> Vec<String> {
    let diagnostics = section("DIAGNOSTICS");
    let ours = diagnostics.split(".Ss Of systemd").next().unwrap();
    ours.lines()
        .filter_map(|line| line.strip_prefix(".It Sy \"")?.strip_suffix('"'))
        .map(str::to_string)
        .collect()
}

/// Words in capitals stand for what varies. The text between them must be in the program.
#[test]
fn messages_are_those_of_the_source() {
    let sentences: Vec<_> = sentences().into_iter().map(|(_, text)| text).collect();
    let source = sentences.join("\n").replace("{still}", "still ");
    let messages = messages();
    assert!(messages.len() > 30, "cannot read DIAGNOSTICS any more");
    // The last is the standard library's.
    for message in messages.iter().filter(|m| !m.starts_with("panicked at")) {
        // The program joins some of them by a colon or a semicolon.
        for fixed in message.split(|c: char| c.is_ascii_uppercase() || ":;".contains(c)) {
            let fixed = fixed.trim_matches(|c: char| !c.is_ascii_lowercase());
            assert!(
                source.contains(fixed),
                "{message:?}: {fixed:?} is not in src/"
            );
        }
    }
}

#[test]
fn sentences_of_the_source_are_on_the_page() {
    let diagnostics = section("DIAGNOSTICS");
    let reasons = diagnostics
        .lines()
        .filter_map(|line| line.strip_prefix(".Dq "));
    let mut messages = messages();
    messages.extend(reasons.map(str::to_string));
    let sentences = sentences();
    assert!(sentences.len() > 40, "cannot read src/ any more");
    let mut missing = Vec::new();
    for (file, sentence) in &sentences {
        // Answers to a client of /metrics, and the RANGE that an option accepts.
        let is_answer = file == "responder.rs"
            && (sentence.ends_with('\n') || sentence.starts_with(|c: char| c.is_ascii_digit()));
        let is_range = sentence.contains("{least}") || sentence.starts_with("a whole number");
        let is_setting = file == "config.rs" && sentence.starts_with("worst-case times");
        let mut lines = sentence.lines();
        let is_said = lines.all(|line| messages.iter().any(|message| says(message, line)));
        if !is_answer && !is_range && !is_setting && !is_said {
            missing.push(format!("{file}: {sentence:?}"));
        }
    }
    assert!(missing.is_empty(), "the page lacks {missing:#?}");
}

/// Whether a message of the page has the fixed parts of a sentence, in their order.
fn says(message: &str, sentence: &str) -> bool {
    let message = message.replace('\'', "");
    let mut rest = message.as_str();
    let sentence = sentence.replace('\'', "").replace('{', "}");
    // Every other part is in braces.
    sentence.split('}').step_by(2).map(str::trim).all(|fixed| {
        let found = rest.find(fixed);
        rest = found.map_or("", |at| &rest[at + fixed.len()..]);
        found.is_some()
    })
}

#[test]
#[ignore = "needs mandoc and groff"]
fn renders_in_silence() {
    let mut mandoc = Command::new("mandoc");
    let mut groff = Command::new("groff");
    mandoc.args(["-T", "lint", "-W", "warning"]);
    groff.args(["-mdoc", "-Tutf8", "-ww", "-z"]);
    for command in [&mut mandoc, &mut groff] {
        let (ok, said) = tool(command, &page());
        assert!(ok && said.is_empty(), "{command:?} says: {said}");
    }
    // The tools do complain if something is wrong.
    let (_, said) = tool(&mut groff, ".Zz");
    assert!(!said.is_empty(), "groff is silent on nonsense");
}

#[test]
#[ignore = "needs mandoc"]
fn fits_80_columns() {
    let (_, text) = tool(Command::new("mandoc").args(["-T", "ascii"]), &page());
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
#[ignore = "needs haproxy"]
fn haproxy_takes_the_example() {
    let folder = Folder::new();
    let path = folder.file("config");
    fs::write(&path, example("HAProxy as the switch")).unwrap();
    let (ok, said) = tool(Command::new("haproxy").args(["-c", "-f"]).arg(&path), "");
    assert!(ok && !said.contains("WARNING"), "haproxy says: {said}");
}
