//! What happens in the lab: the table of events, how each is played, and what is read
//! from the story afterwards.

use crate::lab::{Lab, NODES, Story};
use crate::load::{Push, Summary};
use crate::plan::{CHECKS, Check, DEFAULTS, FEW, HEALTHPORTS, Profile, Result, State, now};
use crate::switch::{self, Belief, Failure, Line};

/// What happens to a router, or to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Start,
    Drain,
    Hang,
    Die,
    Freeze,
    Kill,
    /// Router after router is replaced.
    Roll,
    /// Of so many routes one changes every second, on all nodes.
    Change(u32),
}

use Deed::{Change, Die, Drain, Freeze, Hang, Kill, Roll, Start};

pub const EVENTS: [(&str, Deed); 9] = [
    ("start, the API takes 8 s", Start),
    ("drain", Drain),
    ("hung HAProxy", Hang),
    ("dead HAProxy", Die),
    ("frozen", Freeze),
    ("kill -9", Kill),
    ("rolling update", Roll),
    ("10,000 routes change", Change(10_000)),
    ("30,000 routes change", Change(30_000)),
];

impl Deed {
    /// Whether it goes its own way with a router of this profile: `sidecar` leaves and
    /// dies differently.
    pub fn shows(self, profile: Profile) -> bool {
        profile == Profile::Embedded || matches!(self, Drain | Kill)
    }

    /// Whether the router says what comes, so that no request need be lost.
    pub fn is_announced(self) -> bool {
        !matches!(self, Hang | Die | Freeze | Kill)
    }

    pub fn routes(self) -> u32 {
        match self {
            Change(routes) => routes,
            _ => FEW,
        }
    }

    /// The lines on which the matrix shows it: every check, with retries and without.
    /// Only where routes change does the patience of healthport matter.
    pub fn lines(self) -> Vec<Line> {
        let hasty = if matches!(self, Change(_)) {
            &HEALTHPORTS[1..]
        } else {
            &[]
        };
        switch::lines(&[&CHECKS, hasty].concat(), &[3, 0])
    }
}

/// The phases: number, check, and what one run on a real cluster counted.
pub const PHASES: [(u32, Check, &str); 5] = [
    (1, Check::Http, "162,804, all 200"),
    (2, Check::Stats, "112,472 of 200, 6 of 503, slowest 3.0 s"),
    (2, Check::Traffic, "-"),
    (3, DEFAULTS, "113,253, all 200"),
    (4, DEFAULTS, "1,000,000, all 200"),
];

/// How long the API server takes at a start, as in the recording.
const API: f64 = 8.0;

/// From the end of the old pod to the exec of the new one on the same node: API
/// server, scheduler, container start (inferred: a few seconds).
const NEW_POD: f64 = 5.0;

/// How long a rolling update waits between a ready node and the next one.
const MIN_READY: f64 = 30.0;

/// How long a broken router stays broken. The slowest check needs 25 s to notice: two
/// timeouts of healthport after its interval, and then two checks of the switch.
const BROKEN: f64 = 30.0;

/// From ready to the next event: healthport's probe comes within 1 s, and the switch's
/// check within 2 s more.
const RETURNED: f64 = 10.0;

/// How many times a route changes, once a second.
const CHANGES: u32 = 120;

/// A node counts as healthy once it has been ready for so long: by then no check still
/// goes by an older answer, and healthport has opened.
const HEALTHY: f64 = 5.0;

/// What happened to one node during an event: when, and when it was ready again.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub node: usize,
    pub at: f64,
    pub ready: f64,
}

/// What an event did to one line.
#[derive(Debug)]
pub struct Outcome {
    pub line: Line,
    pub summary: Summary,
    pub failures: Vec<Failure>,
    pub turns: Vec<Turn>,
    /// Seconds on the clock.
    pub took: f64,
    /// Real seconds from the event until the switch stopped sending, in the worst turn;
    /// nothing if it never did.
    pub stopped: Option<f64>,
    /// Real seconds from ready until it sent again; negative if it did so before.
    pub sent_again: Option<f64>,
    /// How often the switch took a healthy node out.
    pub taken_out: usize,
}

/// Makes an event happen in a running lab, under load on all its lines at once: all
/// checks see the same router at the same time.
pub fn happen(lab: &mut Lab, deed: Deed, push: Push) -> Result<Vec<Outcome>> {
    let first = lab.story.failures.len();
    if deed == Start {
        lab.setup.api = API;
        lab.kill(0)?;
        lab.pause(BROKEN)?;
    }
    lab.load(push)?;
    let start = now();
    lab.pause(RETURNED)?;
    let turns = play(lab, deed, push)?;
    lab.settle()?;
    lab.pause(RETURNED)?;
    let loads = lab.unload()?;
    let scale = lab.setup.scale;
    let lines = lab.setup.lines.iter().zip(loads).enumerate();
    let outcome = |(number, (&line, summary))| {
        let reactions = turns
            .iter()
            .map(|turn| reaction(&lab.story.beliefs, number, *turn));
        let (stopped, sent_again): (Vec<_>, Vec<_>) = reactions.unzip();
        let failures = lab.story.failures[first..].iter();
        Outcome {
            line,
            summary,
            failures: failures.filter(|f| f.line == number).cloned().collect(),
            turns: turns.clone(),
            took: now() - start,
            stopped: worst(stopped).map(|time| scale.real(time)),
            sent_again: worst(sent_again).map(|time| scale.real(time)),
            taken_out: taken_out(&lab.story, number, start, HEALTHY * scale.0),
        }
    };
    Ok(lines.map(outcome).collect())
}

fn play(lab: &mut Lab, deed: Deed, push: Push) -> Result<Vec<Turn>> {
    let (node, at) = (0, now());
    match deed {
        Start => {}
        Drain => leave(lab, node)?,
        Hang => lab.hang(node)?,
        Die => lab.break_haproxy(node)?,
        Freeze => lab.freeze(node)?,
        Kill => lab.kill(node)?,
        Roll => return roll(lab, push),
        Change(_) => {
            for _ in 0..CHANGES {
                for node in 0..NODES {
                    lab.change_route(node)?;
                }
                lab.pause(1.0)?;
            }
            let ready = now();
            let turn = |node| Turn { node, at, ready };
            return Ok((0..NODES).map(turn).collect());
        }
    }
    if deed != Start {
        lab.pause(BROKEN)?;
    }
    if matches!(deed, Hang | Freeze) {
        lab.thaw(node)?;
        let ready = now();
        return Ok(vec![Turn { node, at, ready }]);
    }
    if deed == Die {
        lab.kill(node)?; // the kubelet, once liveness has failed
    }
    Ok(vec![come_back(lab, node, at)?])
}

/// Replaces router after router: each once, or until the load has its answers.
fn roll(lab: &mut Lab, push: Push) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    for node in (0..NODES).cycle() {
        let at = now();
        leave(lab, node)?;
        lab.pause(NEW_POD)?;
        turns.push(come_back(lab, node, at)?);
        lab.pause(MIN_READY / 2.0)?;
        lab.change_route(node)?;
        lab.pause(MIN_READY / 2.0)?;
        let failed = lab.story.failures.len();
        eprintln!("{} routers replaced, {failed} failed", turns.len());
        let done = match push.requests {
            Some(_) => lab.load_has_ended(),
            None => turns.len() == NODES,
        };
        if done {
            break;
        }
    }
    Ok(turns)
}

fn leave(lab: &mut Lab, node: usize) -> Result<()> {
    lab.delete(node)?;
    lab.reach(node, State::Gone)
}

fn come_back(lab: &mut Lab, node: usize, at: f64) -> Result<Turn> {
    lab.start(node)?;
    lab.reach(node, State::Ready)?;
    // When the router said it, not when the lab read it.
    let state = lab.story.state_at(node, f64::MAX);
    let ready = state.map_or_else(now, |(_, since)| since);
    Ok(Turn { node, at, ready })
}

/// Seconds from the event until the switch stopped sending, and from ready until it sent
/// again. For the latter the last time counts: a check that a start deceives sends
/// before the router is ready.
pub fn reaction(beliefs: &[Belief], line: usize, turn: Turn) -> (Option<f64>, Option<f64>) {
    let mut later = beliefs
        .iter()
        .filter(|b| b.line == line && b.node == turn.node && b.at >= turn.at);
    let again = later.clone().rev().find(|b| b.up);
    let stopped = later.find(|b| !b.up && b.at < turn.ready);
    (
        stopped.map(|b| b.at - turn.at),
        again.map(|b| b.at - turn.ready),
    )
}

/// The longest time; nothing if one of them is missing.
pub fn worst(times: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let longest = times.into_iter().reduce(|a, b| Some(a?.max(b?)));
    longest.flatten()
}

/// How often the switch took a node out although its router had been ready for
/// `healthy` seconds.
fn taken_out(story: &Story, line: usize, start: f64, healthy: f64) -> usize {
    let downs = story.beliefs.iter().filter(|b| !b.up && b.at >= start);
    let of_line = downs.filter(|b| b.line == line);
    let ready = of_line.filter_map(|b| story.ready_for(b.node, b.at));
    ready.filter(|&time| time >= healthy).count()
}
