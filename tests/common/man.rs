//! DIAGNOSTICS of the man page: every line that a story sees must be there.

const PAGE: &str = include_str!("../../man/healthport.8");

/// Words of DIAGNOSTICS that stand for one word; other words in capitals stand for some.
const SINGLE: [&str; 7] = ["LIST", "M", "N", "RESULT", "SIZE", "STATUS", "TIMEOUT"];

/// The lines of one section.
pub fn section(name: &str) -> &'static str {
    let (_, rest) = PAGE
        .split_once(&format!(".Sh {name}\n"))
        .unwrap_or_else(|| panic!("no section {name}"));
    rest.split("\n.Sh ").next().unwrap()
}

/// The messages under some headings of DIAGNOSTICS.
pub fn messages(headings: &[&str]) -> Vec<&'static str> {
    let parts = section("DIAGNOSTICS").split("\n.Ss ");
    let parts = parts.filter(|part| headings.contains(&part.lines().next().unwrap()));
    parts
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix(".It Sy \"")?.strip_suffix('"'))
        .collect()
}

/// Fails on a line of the log, or of a failed start, that DIAGNOSTICS does not explain.
pub fn explains(line: &str) {
    let line = line
        .split_once("[healthport] ")
        .map_or(line, |(_, line)| line);
    let plain = |text: &str| text.replace(['\'', '"'], "");
    let line = &plain(line.strip_prefix("healthport: ").unwrap_or(line));
    let (reasons, mut port) = (messages(&["Reasons"]), messages(&["Of the port"]));
    port.push("probe: RESULT: REASON");
    let is_explained = port.into_iter().any(|message| match message {
        // Of a probe, and so one of the page's; other reasons are the system's.
        _ if message.contains("REASON") && !message.contains("cannot") => reasons
            .iter()
            .any(|reason| says(&plain(&message.replacen("REASON", reason, 1)), line)),
        _ => says(&plain(message), line),
    });
    let others = messages(&["Of the program", "Of a start that failed", "Of the end"]);
    let mut others = others.iter().filter(|other| !other.starts_with("probe:"));
    assert!(
        is_explained || others.any(|message| says(&plain(message), line)),
        "DIAGNOSTICS of man/healthport.8 lacks {line:?}"
    );
}

/// Whether a line is what a message says, quotes aside.
fn says(message: &str, line: &str) -> bool {
    let is_capital = |c: char| c.is_ascii_uppercase();
    let until = |text: &str, is_end: &dyn Fn(char) -> bool| text.find(is_end).unwrap_or(text.len());
    let (fixed, rest) = message.split_at(until(message, &is_capital));
    let (word, rest) = rest.split_at(until(rest, &|c| !is_capital(c)));
    let Some(line) = line.strip_prefix(fixed) else {
        return false;
    };
    let longest = match line.find(' ') {
        Some(blank) if SINGLE.contains(&word) => blank,
        _ => line.len(),
    };
    // What follows the word says where it may end.
    match &rest[..until(rest, &is_capital)] {
        "" if word.is_empty() => line.is_empty(),
        "" => line.len() <= longest,
        next => line
            .match_indices(next)
            .take_while(|&(end, _)| end <= longest)
            .any(|(end, _)| says(rest, &line[end..])),
    }
}
