//! The picture: one lane for the router, one for each check, one time axis.
//!
//! It uses the SVG back end of `plotters` alone: lanes are rectangles and text, for
//! which a chart with two numeric axes is the wrong tool.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use plotters_backend::text_anchor::{HPos, Pos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontFamily, FontStyle,
};
use plotters_svg::SVGBackend;

use crate::lab::Story;
use crate::plan::{DRAIN, Result, Scale, State};
use crate::scenario::Outcome;

const SIZE: (u32, u32) = (1000, 470);
/// Where the time axis begins and ends, in pixels.
const AXIS: (i32, i32) = (170, 900);
const TOP: i32 = 120;
const LANE: i32 = 58;
const BAR: i32 = 26;

// Colour-blind readers can tell blue from orange.
const BLACK: BackendColor = color(0x22, 0x22, 0x22);
const GREY: BackendColor = color(0x88, 0x88, 0x88);
const PALE: BackendColor = color(0xe4, 0xe4, 0xe4);
const WHITE: BackendColor = color(0xff, 0xff, 0xff);
const BLUE: BackendColor = color(0x9c, 0xc4, 0xe8);
const ORANGE: BackendColor = color(0xf5, 0xb0, 0x55);
const RED: BackendColor = color(0xb0, 0x00, 0x20);

const fn color(red: u8, green: u8, blue: u8) -> BackendColor {
    BackendColor {
        alpha: 1.0,
        rgb: (red, green, blue),
    }
}

/// Draws what a single event did to its node; the outcomes are the lanes.
pub fn draw(path: &Path, outcomes: &[Outcome], story: &Story, scale: Scale) -> Result<()> {
    let mut svg = String::new();
    Picture::new(&mut svg, outcomes, story, scale)
        .draw()
        .map_err(|error| format!("cannot draw the picture: {error}"))?;
    fs::write(path, svg).map_err(|error| format!("cannot write {path:?}: {error}"))
}

/// Whether a node in this state answers requests as it should.
fn serves(state: State) -> bool {
    use State::*;
    matches!(state, Ready | Reload | Drain1 | SidecarTail)
}

/// From, to, what; the times are real seconds since the event.
type Span<T> = (f64, f64, T);

/// Makes spans of changes. The time before the first change is in none.
fn spans<T: Copy>(changes: impl Iterator<Item = (f64, T)>, end: f64) -> Vec<Span<T>> {
    let changes: Vec<_> = changes.collect();
    let ends = changes.iter().skip(1).map(|&(at, _)| at).chain([end]);
    let spans = changes.iter().zip(ends);
    spans.map(|(&(from, what), to)| (from, to, what)).collect()
}

struct Picture<'a> {
    svg: SVGBackend<'a>,
    outcomes: &'a [Outcome],
    story: &'a Story,
    scale: Scale,
    event: f64,
    node: usize,
    /// Real seconds since the event.
    from: f64,
    to: f64,
}

type Drawn = std::result::Result<(), DrawingErrorKind<std::io::Error>>;

impl<'a> Picture<'a> {
    fn new(svg: &'a mut String, outcomes: &'a [Outcome], story: &'a Story, scale: Scale) -> Self {
        let turn = outcomes[0].turns[0];
        Picture {
            svg: SVGBackend::with_string(svg, SIZE),
            outcomes,
            story,
            scale,
            event: turn.at,
            node: turn.node,
            from: -5.0,
            to: scale.real(turn.ready - turn.at) + 10.0,
        }
    }

    fn draw(mut self) -> Drawn {
        self.svg
            .draw_rect((0, 0), (SIZE.0 as i32, SIZE.1 as i32), &WHITE, true)?;
        self.text(
            (24, 18),
            "A router drains and comes back: which check stops the switch in time?",
            Font::new(20.0).bold(),
        )?;
        self.legend()?;
        self.axis()?;
        self.router()?;
        for lane in 0..self.outcomes.len() {
            self.check(lane)?;
        }
        self.svg.present()
    }

    fn legend(&mut self) -> Drawn {
        let y = 60;
        for (x, color, words) in [
            (24, BLUE, "switch sends, node serves"),
            (230, ORANGE, "switch sends, node refuses"),
        ] {
            self.svg.draw_rect((x, y), (x + 22, y + 14), &color, true)?;
            self.text((x + 30, y + 8), words, Font::new(15.0))?;
        }
        self.svg.draw_line((446, y + 7), (468, y + 7), &GREY)?;
        self.text((476, y + 8), "switch does not send", Font::new(15.0))?;
        self.cross((640, y + 7))?;
        self.text((654, y + 8), "a failed request", Font::new(15.0))
    }

    fn axis(&mut self) -> Drawn {
        let bottom = self.y(self.outcomes.len()) + LANE - 8;
        let mut second = 0;
        while f64::from(second) <= self.to {
            let x = self.x(f64::from(second));
            self.svg.draw_line((x, TOP - 14), (x, bottom), &PALE)?;
            let label = format!("{second} s");
            self.text((x, bottom + 12), &label, Font::new(15.0).centered())?;
            second += 15;
        }
        let words = "seconds since SIGTERM, as in production";
        let middle = (AXIS.0 + AXIS.1) / 2;
        self.text((middle, bottom + 34), words, Font::new(15.0).centered())?;
        for (second, words) in [
            (0.0, "SIGTERM: 1936 says not ready"),
            (DRAIN, "45 s, DRAIN-2: 80 and 443 refuse"),
        ] {
            let x = self.x(second);
            self.svg
                .draw_line((x, TOP - 14), (x, bottom), &Stroke(BLACK, 2))?;
            self.text((x + 5, TOP - 15), words, Font::new(15.0))?;
        }
        Ok(())
    }

    fn router(&mut self) -> Drawn {
        let y = self.y(0);
        self.label(y, "the router")?;
        let states = self.story.states.iter();
        let states = states.filter(|(_, node, _)| *node == self.node);
        let states = states.map(|&(at, _, state)| (at, state));
        for (from, to, state) in spans(states, f64::MAX) {
            let Some((left, right)) = self.clip(from, to) else {
                continue;
            };
            let fill = if serves(state) { BLUE } else { PALE };
            self.svg
                .draw_rect((left, y), (right, y + BAR), &fill, true)?;
            self.svg
                .draw_rect((left, y), (right, y + BAR), &GREY, false)?;
            let words = match state {
                State::Drain1 => "DRAIN-1: not ready, still serving",
                State::Drain2 => "", // 2 s are too narrow for a word
                state => state.name(),
            };
            // About 8 pixels for a letter.
            if right - left > 8 * words.len() as i32 {
                let middle = ((left + right) / 2, y + BAR / 2 + 1);
                self.text(middle, words, Font::new(15.0).centered())?;
            }
        }
        Ok(())
    }

    fn check(&mut self, lane: usize) -> Drawn {
        let y = self.y(lane + 1);
        let outcome = &self.outcomes[lane];
        self.label(y, outcome.line.check.name())?;
        let middle = y + BAR / 2;
        self.svg
            .draw_line((AXIS.0, middle), (AXIS.1, middle), &GREY)?;
        let beliefs = self.story.beliefs.iter();
        let beliefs = beliefs.filter(|b| b.line == lane && b.node == self.node);
        for (from, to, up) in spans(beliefs.map(|b| (b.at, b.up)), f64::MAX) {
            if !up {
                continue;
            }
            let states = self.story.states.iter();
            let states = states.filter(|(_, node, _)| *node == self.node);
            let states = states.map(|&(at, _, state)| (at, state));
            for (since, until, state) in spans(states, f64::MAX) {
                if let Some((left, right)) = self.clip(from.max(since), to.min(until)) {
                    let fill = if serves(state) { BLUE } else { ORANGE };
                    self.svg
                        .draw_rect((left, y), (right, y + BAR), &fill, true)?;
                }
            }
        }
        // Two clients often fail at the same time: put one mark above the other.
        for (number, failure) in outcome.failures.iter().enumerate() {
            let x = self.x(self.scale.real(failure.at - self.event));
            self.cross((x, middle - 6 + 12 * (number as i32 % 2)))?;
        }
        let failed = outcome.summary.failed();
        let fill = if failed > 0 { RED } else { BLACK };
        let words = format!("{failed} lost");
        self.text(
            (AXIS.1 + 14, middle + 1),
            &words,
            Font::new(17.0).bold().colored(fill),
        )
    }

    fn label(&mut self, y: i32, words: &str) -> Drawn {
        self.text((24, y + BAR / 2 + 1), words, Font::new(16.0).bold())
    }

    fn cross(&mut self, (x, y): BackendCoord) -> Drawn {
        for (from, to) in [
            ((x - 4, y - 4), (x + 4, y + 4)),
            ((x - 4, y + 4), (x + 4, y - 4)),
        ] {
            self.svg.draw_line(from, to, &Stroke(RED, 2))?;
        }
        Ok(())
    }

    fn text(&mut self, at: BackendCoord, words: &str, font: Font) -> Drawn {
        self.svg.draw_text(words, &font, at)
    }

    fn y(&self, lane: usize) -> i32 {
        TOP + LANE * lane as i32
    }

    fn x(&self, second: f64) -> i32 {
        let part = (second - self.from) / (self.to - self.from);
        AXIS.0 + (part * f64::from(AXIS.1 - AXIS.0)).round() as i32
    }

    /// The pixels between two times, cut to the picture.
    fn clip(&self, from: f64, to: f64) -> Option<(i32, i32)> {
        let second = |at: f64| self.scale.real(at - self.event).clamp(self.from, self.to);
        let (left, right) = (self.x(second(from)), self.x(second(to)));
        (left < right).then_some((left, right))
    }
}

/// A line that is thicker than one pixel.
struct Stroke(BackendColor, u32);

impl BackendStyle for Stroke {
    fn color(&self) -> BackendColor {
        self.0
    }

    fn stroke_width(&self) -> u32 {
        self.1
    }
}

struct Font {
    size: f64,
    style: FontStyle,
    anchor: HPos,
    color: BackendColor,
}

impl Font {
    fn new(size: f64) -> Font {
        Font {
            size,
            style: FontStyle::Normal,
            anchor: HPos::Left,
            color: BLACK,
        }
    }

    fn bold(self) -> Font {
        Font {
            style: FontStyle::Bold,
            ..self
        }
    }

    fn centered(self) -> Font {
        Font {
            anchor: HPos::Center,
            ..self
        }
    }

    fn colored(self, color: BackendColor) -> Font {
        Font { color, ..self }
    }
}

/// The SVG back end writes `<text>` and leaves drawing the letters to the viewer, so the
/// last two functions are never called.
impl BackendTextStyle for Font {
    type FontError = Infallible;

    fn color(&self) -> BackendColor {
        self.color
    }

    fn size(&self) -> f64 {
        self.size
    }

    fn style(&self) -> FontStyle {
        self.style
    }

    fn anchor(&self) -> Pos {
        Pos::new(self.anchor, VPos::Center)
    }

    fn family(&self) -> FontFamily<'_> {
        FontFamily::SansSerif
    }

    fn layout_box(
        &self,
        _: &str,
    ) -> std::result::Result<((i32, i32), (i32, i32)), Self::FontError> {
        Ok(((0, 0), (0, 0)))
    }

    fn draw<E, F: FnMut(i32, i32, BackendColor) -> std::result::Result<(), E>>(
        &self,
        _: &str,
        _: BackendCoord,
        _: F,
    ) -> std::result::Result<std::result::Result<(), E>, Self::FontError> {
        Ok(Ok(()))
    }
}
