//! Turns results into text: tables and lists of failed requests. Only [`put`] touches
//! files, the pages that hold them.

use std::fmt::Write;
use std::fs;

use crate::lab::Story;
use crate::plan::{Check, DEFAULTS, FALL, FAST_INTERVAL, INTER, INTERVAL, Mode, Result, Scale};
use crate::scenario::{Deed, Outcome, worst};
use crate::switch::Failure;

/// One row for each phase: its number, what came of it, what a real cluster counted.
pub fn phases(phases: &[(u32, Outcome, &str)], scale: Scale) -> String {
    let mut table = "| Phase | Check of the switch | Answers of 200 | Failed | Slowest | Routers replaced | Time | A real cluster |
|---|---|---:|---:|---:|---:|---:|---|\n"
        .to_string();
    for (number, outcome, cluster) in phases {
        let _ = writeln!(
            table,
            "| {number} | {} | {} | {} | {:.1} s | {} | {:.0} s | {cluster} |",
            outcome.line.check,
            thousands(outcome.summary.good()),
            thousands(outcome.summary.failed()),
            scale.real(outcome.summary.slowest),
            outcome.turns.len(),
            outcome.took,
        );
    }
    table
}

/// 1234567 as 1,234,567.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Every failed request: when, what the client got, where, and what the router
/// was doing when the switch gave up.
pub fn failures(failures: &[Failure], story: &Story, scale: Scale) -> String {
    let first = story.states.first().map_or(0.0, |&(at, _, _)| at);
    let mut list = String::new();
    for failure in failures {
        let end = failure.at + failure.took;
        let status = failure
            .status
            .map_or("no answer".to_string(), |status| status.to_string());
        let node = failure.node.map(|node| (node, story.state_at(node, end)));
        let place = match node {
            None => "no node left".to_string(),
            Some((node, None)) => format!("node {}", node + 1),
            Some((node, Some((state, since)))) => {
                let since = scale.real(end - since);
                format!("node {}, {state} for {since:.1} s", node + 1)
            }
        };
        let _ = writeln!(
            list,
            "  at {:.1} s, after {:.1} s: {status} ({}), {place}",
            scale.real(failure.at - first),
            scale.real(failure.took),
            failure.why,
        );
    }
    list
}

/// One row for all modes of a check. They lose different numbers of requests, but the
/// check behaves alike in all, so the slowest time counts.
pub fn matrix(outcomes: &[Outcome]) -> String {
    let mut table = "| Event | Router | Check of the switch | Lost, http | Lost, tcp | Lost, no retry | Healthy nodes taken out | Stopped sending | Sent again |
|---|---|---|---:|---:|---:|---:|---:|---:|
"
        .to_string();
    let mut previous: Option<&Outcome> = None;
    for http in outcomes.iter().filter(|o| o.line.mode == Mode::Http) {
        let all = outcomes
            .iter()
            .filter(|o| o.beside(http) && o.line.check == http.line.check);
        let lost = all.clone().map(|o| match o.summary.failed() {
            0 => "0".to_string(),
            failed => format!("**{failed}** of {}", failed + o.summary.good()),
        });
        let lost: Vec<_> = lost.collect();
        let stopped = worst(all.clone().map(|o| o.stopped));
        let mut stopped = stopped.map_or("never".to_string(), |s| format!("{s:.1} s"));
        let again = worst(all.clone().map(|o| o.sent_again));
        let mut again = again.map_or("-".to_string(), |s| match s {
            0.0.. => format!("{s:.1} s"),
            _ => format!("**{:.1} s before**", -s),
        });
        // Nothing stops for a start, and nothing comes back while routes change.
        match http.event.deed {
            Deed::Start => stopped = "-".to_string(),
            Deed::Change => again = "-".to_string(),
            _ => {}
        }
        let taken_out = match all.map(|o| o.taken_out).sum() {
            0 => "0".to_string(),
            count => format!("**{count}**"),
        };
        let (event, profile) = match previous.is_some_and(|previous| previous.beside(http)) {
            true => ("", String::new()),
            false => (http.event.name, http.profile.to_string()),
        };
        previous = Some(http);
        let _ = writeln!(
            table,
            "| {event} | {profile} | {} | {} | {taken_out} | {stopped} | {again} |",
            http.line.check,
            lost.join(" | "),
        );
    }
    table
}

/// The requests that healthport's check lost and the HTTP check of the same event would
/// not have: later after that had stopped sending than healthport takes to close on a
/// bad answer. The two checks of the switch do not start together, which adds up to one
/// `inter`. Where nothing answers, healthport is allowed its promised time and the
/// switch its checks.
pub fn worse_than_http(outcomes: &[Outcome], scale: Scale) -> Vec<(&Outcome, &Failure)> {
    let Check::Healthport(timeout, fall) = DEFAULTS else {
        return Vec::new();
    };
    let reaction = INTERVAL + f64::from(fall - 1) * FAST_INTERVAL;
    let hang = INTERVAL + f64::from(fall) * timeout + f64::from(FALL) * INTER;
    let mut worse = Vec::new();
    for ours in outcomes.iter().filter(|o| o.line.check == DEFAULTS) {
        let http = outcomes.iter().find(|o| {
            o.beside(ours) && (o.line.check, o.line.mode) == (Check::Http, ours.line.mode)
        });
        let stopped = http.and_then(|http| http.stopped);
        let allowed = stopped.map_or(f64::MAX, |stopped| stopped + reaction + INTER);
        let allowed = match ours.event.deed {
            Deed::Hang | Deed::Freeze => allowed.max(hang),
            _ => allowed,
        };
        for failure in &ours.failures {
            let turn = ours.turns.iter().find(|t| Some(t.node) == failure.node);
            let after = turn.map(|turn| scale.real(failure.at - turn.at));
            if after.is_none_or(|after| after > allowed) {
                worse.push((ours, failure));
            }
        }
    }
    worse
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
