//! The options as --help shows them.

use healthport::options::HELP;

/// One option of [`HELP`].
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub short: Option<String>,
    /// The long form without its dashes.
    pub name: String,
    /// What it takes; empty for a command such as --once.
    pub argument: String,
    /// What the text says, on one line.
    pub text: String,
}

/// All options, in their order.
pub fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in HELP.lines().filter(|line| line.starts_with("  ")) {
        let (names, text) = line.trim_start().split_once("  ").unwrap_or(("", line));
        let Some((short, long)) = names.split_once("--") else {
            // The text of the option above goes on.
            let entry = entries.last_mut().expect("an option before its text");
            entry.text += &format!(" {}", line.trim());
            continue;
        };
        let (name, argument) = long.split_once(' ').unwrap_or((long, ""));
        entries.push(Entry {
            short: short.strip_suffix(", ").map(str::to_string),
            name: name.to_string(),
            // The quotes are the shell's.
            argument: argument.trim_matches('\'').to_string(),
            text: text.trim().to_string(),
        });
    }
    assert!(entries.len() > 15, "cannot read the help any more");
    entries
}

impl Entry {
    /// Without its brackets.
    pub fn default(&self) -> Option<&str> {
        Some(self.text.strip_suffix(']')?.rsplit_once('[')?.1)
    }

    pub fn ranges(&self) -> Vec<String> {
        ranges(&self.text)
    }
}

/// Every "to" between two numbers, with them: `10ms to 60m`, `1 to 100`.
pub fn ranges(text: &str) -> Vec<String> {
    let words: Vec<_> = text.split_whitespace().collect();
    let range = regex_lite::Regex::new(r"\d\w* to \d\w*").unwrap();
    let words = words.join(" ");
    let ranges = range.find_iter(&words);
    ranges.map(|range| range.as_str().to_string()).collect()
}
