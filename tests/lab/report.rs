//! Turns results into text: tables and lists of failed requests. Only [`put`] touches
//! files, the pages that hold them.

use std::fmt::Write;
use std::fs;

use crate::lab::Story;
use crate::plan::{Result, Scale};
use crate::scenario::{Deed, Outcome, worst};
use crate::switch::Failure;

pub const PHASES: &str = "\
| Phase | Check of the switch | Answers of 200 | Failed | Slowest | Routers replaced | Time | A real cluster |
|---|---|---:|---:|---:|---:|---:|---|
";

pub const MATRIX: &str = "\
| Event | Router | Check of the switch | Lost | Lost, no retry | Healthy nodes taken out | Stopped sending | Sent again |
|---|---|---|---:|---:|---:|---:|---:|
";

/// What came of a phase, beside what a real cluster counted.
pub fn phase(number: u32, outcome: &Outcome, cluster: &str, scale: Scale) -> String {
    format!(
        "| {number} | {} | {} | {} | {:.1} s | {} | {:.0} s | {cluster} |\n",
        outcome.line.check,
        thousands(outcome.summary.good),
        thousands(outcome.summary.failed),
        scale.real(outcome.summary.slowest),
        outcome.turns.len(),
        outcome.took,
    )
}

/// 1234567 as 1,234,567.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Every failed request, after how many real seconds, and what the router was doing when
/// the switch gave up.
pub fn failures(failures: &[Failure], story: &Story, scale: Scale) -> String {
    let mut list = String::new();
    for failure in failures {
        let Failure { status, why, .. } = failure;
        let end = failure.at + failure.took;
        let state = failure.node.and_then(|node| story.state_at(node, end));
        let state = state.map_or("no node left".to_string(), |(state, _)| state.to_string());
        let after = scale.real(failure.took);
        let _ = writeln!(list, "  {status} ({why}) after {after:.1} s: {state}");
    }
    list
}

/// What an event did: a row for each check, which has a line with retries and one
/// without. The check behaves alike in both, so the slower time counts.
pub fn rows(event: &str, profile: &str, deed: Deed, outcomes: &[Outcome]) -> String {
    let mut rows = String::new();
    let mut head = format!("{event} | {profile}");
    for both in outcomes.chunk_by(|a, b| a.line.check == b.line.check) {
        let lost = both.iter().map(|o| match o.summary.failed {
            0 => "0".to_string(),
            failed => format!("**{failed}** of {}", failed + o.summary.good),
        });
        let lost: Vec<_> = lost.collect();
        let taken_out = match both.iter().map(|o| o.taken_out).sum() {
            0 => "0".to_string(),
            count => format!("**{count}**"),
        };
        // Nothing stops for a start, and nothing comes back while routes change.
        let stopped = match worst(both.iter().map(|o| o.stopped)) {
            _ if deed == Deed::Start => "-".to_string(),
            Some(after) => format!("{after:.1} s"),
            None => "never".to_string(),
        };
        let again = match worst(both.iter().map(|o| o.sent_again)) {
            _ if matches!(deed, Deed::Change(_)) => "-".to_string(),
            Some(after @ 0.0..) => format!("{after:.1} s"),
            Some(before) => format!("**{:.1} s before**", -before),
            None => "-".to_string(),
        };
        let (check, lost) = (both[0].line.check, lost.join(" | "));
        let _ = writeln!(
            rows,
            "| {head} | {check} | {lost} | {taken_out} | {stopped} | {again} |"
        );
        head = " | ".to_string();
    }
    rows
}

/// Replaces what stands between the markers `<!-- NAME -->` and `<!-- /NAME -->`
/// of a page, which is named from here.
pub fn put(page: &str, name: &str, text: &str) -> Result<()> {
    let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
    let failed = |error| format!("cannot rewrite {path}: {error}");
    let document = fs::read_to_string(&path).map_err(failed)?;
    let document =
        between(&document, name, text).ok_or(format!("{path} has no place for {name}"))?;
    fs::write(&path, document).map_err(failed)
}

pub fn between(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}
