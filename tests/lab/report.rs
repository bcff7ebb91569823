//! Turns results into text: tables and lists of failed requests. Only [`put`] touches
//! files, the pages that hold them.

use std::fmt::Write;
use std::fs;

use crate::lab::Story;
use crate::plan::{
    Check, Event, FALL, FAST_INTERVAL, INTER, INTERVAL, Mode, PROBE_FALL, Result, Scale, TIMEOUT,
};
use crate::scenario::{Outcome, Phase};
use crate::switch::Failure;

/// One run each on a real cluster, from the issue that asked for this lab.
fn reference(phase: u32) -> &'static str {
    match phase {
        1 => "162,804, all 200",
        2 => "112,472 of 200, 6 of 503, slowest 3.0 s",
        3 => "113,253, all 200",
        _ => "1,000,000, all 200",
    }
}

pub fn phases(phases: &[Phase], scale: Scale) -> String {
    let mut table = "| Phase | Check of the switch | Answers of 200 | Failed | Slowest | Routers replaced | Time | A real cluster |
|---|---|---:|---:|---:|---:|---:|---|\n"
        .to_string();
    for phase in phases {
        let summary = &phase.summary;
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {:.1} s | {} | {:.0} s | {} |",
            phase.number,
            phase.check.name(),
            thousands(summary.good()),
            thousands(summary.failed()),
            scale.real(summary.slowest),
            phase.replaced,
            phase.took,
            reference(phase.number),
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
        let place = match failure.node {
            None => "no node left".to_string(),
            Some(node) => match story.state_at(node, end) {
                None => format!("node {}", node + 1),
                Some((state, since)) => {
                    let since = scale.real(end - since);
                    format!("node {}, {state} for {since:.1} s", node + 1)
                }
            },
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
    let mut previous = None;
    for http in outcomes.iter().filter(|o| o.line.mode == Mode::Http) {
        let same = |o: &&Outcome| {
            (o.event, o.profile, o.line.check) == (http.event, http.profile, http.line.check)
        };
        let all: Vec<_> = outcomes.iter().filter(same).collect();
        let lost = |mode| {
            let of = all.iter().find(|o| o.line.mode == mode);
            of.map_or(String::new(), |o| {
                let (failed, sum) = (o.summary.failed(), o.summary.good() + o.summary.failed());
                match failed {
                    0 => "0".to_string(),
                    _ => format!("**{failed}** of {sum}"),
                }
            })
        };
        let slower = |time: fn(&Outcome) -> Option<f64>| {
            let times = all.iter().map(|o| time(o));
            times.reduce(|a, b| Some(a?.max(b?))).flatten()
        };
        let stopped = slower(|o| o.stopped).map_or("never".to_string(), |s| format!("{s:.1} s"));
        let again = slower(|o| o.sent_again).map_or("-".to_string(), |s| match s {
            0.0.. => format!("{s:.1} s"),
            _ => format!("**{:.1} s before**", -s),
        });
        let group = (http.event, http.profile);
        let (event, profile) = match previous == Some(group) {
            true => ("", ""),
            false => (http.event.name(), http.profile.name()),
        };
        previous = Some(group);
        // Nothing stops for a start, and nothing comes back after a reload.
        let (stopped, again) = match http.event {
            Event::Start | Event::SlowStart => ("-", &*again),
            Event::MediumReloads | Event::LargeReloads => (&*stopped, "-"),
            _ => (&*stopped, &*again),
        };
        let taken_out = http.taken_out.map(|count| match count {
            0 => "0".to_string(),
            _ => format!("**{count}**"),
        });
        let _ = writeln!(
            table,
            "| {event} | {profile} | {} | {} | {} | {} | {} | {stopped} | {again} |",
            http.line.check.name(),
            lost(Mode::Http),
            lost(Mode::Tcp),
            lost(Mode::NoRetry),
            taken_out.join(" / "),
        );
    }
    table
}

/// The requests that healthport's check lost and the HTTP check of the same event would
/// not have: later after that had stopped sending than healthport takes to close on a
/// bad answer. The two checks of the switch do not start together, which adds up to one
/// `inter`. Where nothing answers, healthport is allowed its promised time and three
/// checks of the switch.
pub fn worse_than_http(outcomes: &[Outcome], scale: Scale) -> Vec<(&Outcome, &Failure)> {
    let reaction = INTERVAL + f64::from(PROBE_FALL - 1) * FAST_INTERVAL;
    let hang = INTERVAL + f64::from(PROBE_FALL) * TIMEOUT + f64::from(FALL) * INTER;
    let mut worse = Vec::new();
    for ours in outcomes
        .iter()
        .filter(|o| o.line.check == Check::Healthport)
    {
        let http = outcomes.iter().find(|o| {
            (o.event, o.profile, o.line.mode) == (ours.event, ours.profile, ours.line.mode)
                && o.line.check == Check::Http
        });
        let allowed = http
            .and_then(|http| http.stopped)
            .map_or(f64::MAX, |stopped| stopped + reaction + INTER);
        let allowed = match ours.event {
            Event::Hung | Event::Frozen => allowed.max(hang),
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
/// of a page.
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
