//! The picture: one lane for the router, one for each check, one time axis.

use crate::lab::Story;
use crate::plan::{DRAIN, Scale, State};
use crate::scenario::Outcome;

/// What is the same in every picture. Colour-blind readers can tell blue from orange.
const FRAME: &str = r#"<svg viewBox="0 0 1000 470" xmlns="http://www.w3.org/2000/svg">
<style>
text { font: 12px sans-serif; fill: #222222; dominant-baseline: central }
.title { font-size: 16px; font-weight: bold }
.lane, .bad { font-size: 13px; font-weight: bold }
.bad { fill: #b00020 }
.middle, .cross { text-anchor: middle }
.cross { font-size: 18px; fill: #b00020 }
.white { fill: #ffffff }
.gray { fill: #888888 }
.pale { fill: #e4e4e4 }
.dark { fill: #222222 }
.blue { fill: #9cc4e8 }
.orange { fill: #f5b055 }
.state { stroke: #888888 }
</style>
<rect class="white" width="1000" height="470"/>
<text class="title" x="24" y="26">A router drains and comes back: which check stops the switch in time?</text>
<rect class="blue" x="24" y="60" width="22" height="14"/>
<text x="54" y="67">switch sends, node serves</text>
<rect class="orange" x="230" y="60" width="22" height="14"/>
<text x="260" y="67">switch sends, node refuses</text>
<rect class="gray" x="446" y="67" width="22" height="1"/>
<text x="476" y="67">switch does not send</text>
<text class="cross" x="640" y="67">×</text>
<text x="654" y="67">a failed request</text>
<text class="middle" x="535" y="438">seconds since SIGTERM, as in production</text>
"#;

/// Where the time axis begins and ends, and where its lines do, in pixels.
const AXIS: (f64, f64) = (170.0, 900.0);
const LINES: (f64, f64) = (106.0, 402.0);

/// Draws what a single event did to its node; the outcomes are the lanes.
pub fn draw(outcomes: &[Outcome], story: &Story, scale: Scale) -> String {
    let turn = outcomes[0].turns[0];
    // Real seconds since the event; the picture begins 5 s before it.
    let real = |at: f64| scale.real(at - turn.at);
    let to = real(turn.ready) + 10.0;
    let x = |second: f64| {
        let part = (second.clamp(-5.0, to) + 5.0) / (to + 5.0);
        (AXIS.0 + part * (AXIS.1 - AXIS.0)).round()
    };
    let mut svg = FRAME.to_string();
    for second in (0..=to as u32).step_by(15) {
        let x = x(f64::from(second));
        svg += &rect("pale", (x, x + 1.0), LINES);
        svg += &text("middle", (x, LINES.1 + 14.0), &format!("{second} s"));
    }
    for (second, words) in [
        (0.0, "SIGTERM: 1936 says not ready"),
        (DRAIN, "45 s, DRAIN2: 80 and 443 refuse"),
    ] {
        svg += &rect("dark", (x(second) - 1.0, x(second) + 1.0), LINES);
        svg += &text("", (x(second) + 5.0, LINES.0), words);
    }

    let states = story.states.iter().filter(|state| state.1 == turn.node);
    let states = spans(states.map(|&(at, _, state)| (real(at), state)));
    svg += &text("lane", (24.0, 133.0), "the router");
    for &(from, to, state) in &states {
        let (left, right) = (x(from), x(to));
        let fill = if state.serves() { "blue" } else { "pale" };
        svg += &rect(&format!("{fill} state"), (left, right), (120.0, 146.0));
        let words = match state {
            State::Drain1 => "DRAIN1: not ready, still serving".to_string(),
            state => state.to_string(),
        };
        // About 8 pixels for a letter; the 2 s of DRAIN2 are too narrow for a word.
        if right - left > 8.0 * words.len() as f64 {
            svg += &text("middle", ((left + right) / 2.0, 133.0), &words);
        }
    }
    for (lane, outcome) in outcomes.iter().enumerate() {
        let y = 191.0 + 58.0 * lane as f64;
        svg += &text("lane", (24.0, y), &outcome.line.check.to_string());
        svg += &rect("gray", AXIS, (y, y + 1.0));
        let beliefs = story.beliefs.iter();
        let beliefs = beliefs.filter(|b| b.line == lane && b.node == turn.node);
        let sends = spans(beliefs.map(|b| (real(b.at), b.up)));
        for &(from, to, _) in sends.iter().filter(|(_, _, up)| *up) {
            for &(since, until, state) in &states {
                let fill = if state.serves() { "blue" } else { "orange" };
                let time = (x(from.max(since)), x(to.min(until)));
                svg += &rect(fill, time, (y - 13.0, y + 13.0));
            }
        }
        // Two clients often fail at the same time: put one mark above the other.
        for (number, failure) in outcome.failures.iter().enumerate() {
            let above = 12.0 * (number % 2) as f64 - 6.0;
            svg += &text("cross", (x(real(failure.at)), y + above), "×");
        }
        let failed = outcome.summary.failed;
        let class = if failed > 0 { "bad" } else { "lane" };
        svg += &text(class, (AXIS.1 + 14.0, y), &format!("{failed} lost"));
    }
    svg + "</svg>\n"
}

/// Nothing if it has no width.
fn rect(class: &str, (left, right): (f64, f64), (top, bottom): (f64, f64)) -> String {
    let (width, height) = (right - left, bottom - top);
    if width <= 0.0 {
        return String::new();
    }
    format!(
        "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/>\n"
    )
}

fn text(class: &str, (x, y): (f64, f64), words: &str) -> String {
    format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{words}</text>\n")
}

/// From, to, what: how long each of the changes lasted.
fn spans<T: Copy>(changes: impl Iterator<Item = (f64, T)>) -> Vec<(f64, f64, T)> {
    let changes: Vec<_> = changes.collect();
    let ends = changes.iter().skip(1).map(|&(at, _)| at).chain([f64::MAX]);
    let spans = changes.iter().zip(ends);
    spans.map(|(&(from, what), to)| (from, to, what)).collect()
}
