//! DIAGNOSTICS of the man page: every line that a story sees must be there.

use std::sync::OnceLock;

use regex_lite::{Regex, escape};

const PAGE: &str = include_str!("../../man/healthport.8");

/// The lines of one section.
pub fn section(name: &str) -> &'static str {
    let (_, rest) = PAGE
        .split_once(&format!(".Sh {name}\n"))
        .unwrap_or_else(|| panic!("no section {name}"));
    rest.split("\n.Sh ").next().unwrap()
}

/// The messages of the program under the headings of DIAGNOSTICS that begin so.
pub fn messages(heading: &str) -> Vec<String> {
    let parts = section("DIAGNOSTICS").split("\n.Ss ");
    let parts = parts.filter(|part| part.starts_with(heading) && !part.starts_with("Of systemd"));
    let lines = parts.flat_map(str::lines);
    let messages = lines.filter_map(|line| line.strip_prefix(".It Sy \"")?.strip_suffix('"'));
    messages.map(str::to_string).collect()
}

/// Fails on a line of the log, or of a failed start, that DIAGNOSTICS does not explain.
pub fn explains(line: &str) {
    static KNOWN: OnceLock<Vec<Regex>> = OnceLock::new();
    let (_, text) = line.split_once("[healthport] ").unwrap_or(("", line));
    let text = plain(text.strip_prefix("healthport: ").unwrap_or(text));
    let known = KNOWN.get_or_init(known);
    assert!(
        known.iter().any(|message| message.is_match(&text)),
        "DIAGNOSTICS of man/healthport.8 lacks {line:?}"
    );
}

fn plain(text: &str) -> String {
    text.replace(['\'', '"'], "")
}

/// What a message stands for: a word in capitals for some words, or for one.
fn pattern(message: &str) -> String {
    let one = Regex::new(r"\b(LIST|M|N|RESULT|SIZE|STATUS|TIMEOUT)\b").unwrap();
    let some = Regex::new("[A-Z]+").unwrap();
    let message = escape(&plain(message));
    let message = one.replace_all(&message, "[^ ]*");
    some.replace_all(&message, ".*").into_owned()
}

fn known() -> Vec<Regex> {
    let reasons: Vec<_> = messages("Reasons").iter().map(|it| pattern(it)).collect();
    let reasons = reasons.join("|");
    let lines = messages("Of ").into_iter().map(|line| {
        let is_of_a_probe = line.starts_with("port") || line.starts_with("probe:");
        match line.split_once("REASON") {
            // Of a probe, and so one of the page's; other reasons are the system's.
            Some((before, after)) if is_of_a_probe && !line.contains("cannot") => {
                format!("^{}({reasons}){}$", pattern(before), pattern(after))
            }
            _ => format!("^{}$", pattern(&line)),
        }
    });
    lines.map(|line| Regex::new(&line).unwrap()).collect()
}
