//! The picture: one lane for the router, one for each check, one time axis.

use std::path::Path;

use svg::Document;
use svg::node::element::{Line, Rectangle, Style, Text};

use crate::lab::Story;
use crate::plan::{DRAIN, Result, Scale, State};
use crate::scenario::Outcome;

const SIZE: (f64, f64) = (1000.0, 470.0);
/// Where the time axis begins and ends, in pixels.
const AXIS: (f64, f64) = (170.0, 900.0);
const TOP: f64 = 120.0;
const LANE: f64 = 58.0;
const BAR: f64 = 26.0;

// Colour-blind readers can tell blue from orange.
const STYLE: &str = "
text { font-family: sans-serif; font-size: 12px; fill: #222222; dominant-baseline: central }
.title { font-size: 16px; font-weight: bold }
.lane { font-size: 13px; font-weight: bold }
.bad { fill: #b00020 }
.middle { text-anchor: middle }
line { stroke: #888888 }
line.grid { stroke: #e4e4e4 }
line.mark { stroke: #222222; stroke-width: 2 }
line.cross { stroke: #b00020; stroke-width: 2 }
rect.state { stroke: #888888 }
rect.white { fill: #ffffff }
rect.pale { fill: #e4e4e4 }
rect.blue { fill: #9cc4e8 }
rect.orange { fill: #f5b055 }
";

/// Draws what a single event did to its node; the outcomes are the lanes.
pub fn draw(path: &Path, outcomes: &[Outcome], story: &Story, scale: Scale) -> Result<()> {
    let picture = Picture::of(outcomes, story, scale);
    svg::save(path, &picture).map_err(|error| format!("cannot write {path:?}: {error}"))
}

struct Picture {
    svg: Document,
    scale: Scale,
    event: f64,
    /// Real seconds since the event.
    from: f64,
    to: f64,
}

impl Picture {
    fn of(outcomes: &[Outcome], story: &Story, scale: Scale) -> Document {
        let turn = outcomes[0].turns[0];
        let view = (0, 0, SIZE.0, SIZE.1);
        let mut picture = Picture {
            svg: Document::new().set("viewBox", view).add(Style::new(STYLE)),
            scale,
            event: turn.at,
            from: -5.0,
            to: scale.real(turn.ready - turn.at) + 10.0,
        };
        picture.rect("white", (0.0, SIZE.0), (0.0, SIZE.1));
        let title = "A router drains and comes back: which check stops the switch in time?";
        picture.text("title", (24.0, 26.0), title);
        picture.legend();
        picture.axis(TOP + LANE * (outcomes.len() as f64 + 1.0) - 8.0);
        // From, to, what: how long each state and each belief lasted.
        let states = story
            .states
            .iter()
            .filter(|(_, node, _)| *node == turn.node);
        let states = spans(states.map(|&(at, _, state)| (at, state)));
        picture.router(&states);
        for (lane, outcome) in outcomes.iter().enumerate() {
            let beliefs = story.beliefs.iter();
            let beliefs = beliefs.filter(|b| b.line == lane && b.node == turn.node);
            let beliefs = spans(beliefs.map(|b| (b.at, b.up)));
            picture.check(TOP + LANE * (lane as f64 + 1.0), outcome, &states, &beliefs);
        }
        picture.svg
    }

    fn legend(&mut self) {
        let y = 60.0;
        self.rect("blue", (24.0, 46.0), (y, y + 14.0));
        self.text("words", (54.0, y + 7.0), "switch sends, node serves");
        self.rect("orange", (230.0, 252.0), (y, y + 14.0));
        self.text("words", (260.0, y + 7.0), "switch sends, node refuses");
        self.line("thin", (446.0, y + 7.0), (468.0, y + 7.0));
        self.text("words", (476.0, y + 7.0), "switch does not send");
        self.cross(640.0, y + 7.0);
        self.text("words", (654.0, y + 7.0), "a failed request");
    }

    fn axis(&mut self, bottom: f64) {
        for second in (0..=self.to as u32).step_by(15) {
            let x = self.x(f64::from(second));
            self.line("grid", (x, TOP - 14.0), (x, bottom));
            self.text("middle", (x, bottom + 14.0), &format!("{second} s"));
        }
        let middle = (AXIS.0 + AXIS.1) / 2.0;
        let words = "seconds since SIGTERM, as in production";
        self.text("middle", (middle, bottom + 36.0), words);
        for (second, words) in [
            (0.0, "SIGTERM: 1936 says not ready"),
            (DRAIN, "45 s, DRAIN2: 80 and 443 refuse"),
        ] {
            let x = self.x(second);
            self.line("mark", (x, TOP - 14.0), (x, bottom));
            self.text("words", (x + 5.0, TOP - 15.0), words);
        }
    }

    fn router(&mut self, states: &[Span<State>]) {
        self.text("lane", (24.0, TOP + BAR / 2.0), "the router");
        for &(from, to, state) in states {
            let Some((left, right)) = self.clip(from, to) else {
                continue;
            };
            let fill = if state.serves() {
                "blue state"
            } else {
                "pale state"
            };
            self.rect(fill, (left, right), (TOP, TOP + BAR));
            let words = match state {
                State::Drain1 => "DRAIN1: not ready, still serving".to_string(),
                state => state.to_string(),
            };
            // About 8 pixels for a letter; the 2 s of DRAIN2 are too narrow for a word.
            if right - left > 8.0 * words.len() as f64 {
                self.text("middle", ((left + right) / 2.0, TOP + BAR / 2.0), &words);
            }
        }
    }

    fn check(&mut self, y: f64, outcome: &Outcome, states: &[Span<State>], sends: &[Span<bool>]) {
        let middle = y + BAR / 2.0;
        self.text("lane", (24.0, middle), &outcome.line.check.to_string());
        self.line("thin", (AXIS.0, middle), (AXIS.1, middle));
        for &(from, to, _) in sends.iter().filter(|(_, _, up)| *up) {
            for &(since, until, state) in states {
                if let Some(x) = self.clip(from.max(since), to.min(until)) {
                    let fill = if state.serves() { "blue" } else { "orange" };
                    self.rect(fill, x, (y, y + BAR));
                }
            }
        }
        // Two clients often fail at the same time: put one mark above the other.
        for (number, failure) in outcome.failures.iter().enumerate() {
            let x = self.x(self.scale.real(failure.at - self.event));
            self.cross(x, middle - 6.0 + 12.0 * (number % 2) as f64);
        }
        let failed = outcome.summary.failed();
        let class = if failed > 0 { "lane bad" } else { "lane" };
        self.text(class, (AXIS.1 + 14.0, middle), &format!("{failed} lost"));
    }

    fn rect(&mut self, class: &str, x: (f64, f64), y: (f64, f64)) {
        let rect = Rectangle::new().set("class", class);
        let rect = rect.set("x", x.0).set("width", x.1 - x.0);
        self.add(rect.set("y", y.0).set("height", y.1 - y.0));
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let line = Line::new().set("class", class);
        let line = line.set("x1", from.0).set("y1", from.1);
        self.add(line.set("x2", to.0).set("y2", to.1));
    }

    fn cross(&mut self, x: f64, y: f64) {
        self.line("cross", (x - 4.0, y - 4.0), (x + 4.0, y + 4.0));
        self.line("cross", (x - 4.0, y + 4.0), (x + 4.0, y - 4.0));
    }

    fn text(&mut self, class: &str, at: (f64, f64), words: &str) {
        let text = Text::new(words).set("class", class);
        self.add(text.set("x", at.0).set("y", at.1));
    }

    fn add(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        svg::Node::append(&mut self.svg, node);
    }

    fn x(&self, second: f64) -> f64 {
        let part = (second - self.from) / (self.to - self.from);
        (AXIS.0 + part * (AXIS.1 - AXIS.0)).round()
    }

    /// The pixels between two times, cut to the picture.
    fn clip(&self, from: f64, to: f64) -> Option<(f64, f64)> {
        let second = |at: f64| self.scale.real(at - self.event).clamp(self.from, self.to);
        let (left, right) = (self.x(second(from)), self.x(second(to)));
        (left < right).then_some((left, right))
    }
}

/// From, to, what; in seconds since 1970.
type Span<T> = (f64, f64, T);

/// Makes spans of changes. The time before the first change is in none.
fn spans<T: Copy>(changes: impl Iterator<Item = (f64, T)>) -> Vec<Span<T>> {
    let changes: Vec<_> = changes.collect();
    let ends = changes.iter().skip(1).map(|&(at, _)| at).chain([f64::MAX]);
    let spans = changes.iter().zip(ends);
    spans.map(|(&(from, what), to)| (from, to, what)).collect()
}
