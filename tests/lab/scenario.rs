//! What happens in the lab: the table of events, how each is played, and what is read
//! from the story afterwards.

use std::net::TcpStream;
use std::sync::Arc;

use crate::lab::{Lab, NODES, Story};
use crate::load::{Push, Summary};
use crate::plan::{
    CHECKS, Check, DEFAULTS, HASTY, MIN_READY, Mode, Profile, R3000, R10000, R30000, R50000,
    Result, SMALL, Size, State, now,
};
use crate::switch::{Belief, Failure, Line};

/// What happens to a router, or to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Start,
    Drain,
    BusyDrain,
    Hang,
    Die,
    Freeze,
    Kill,
    /// Router after router is replaced.
    Roll,
    /// A route changes every second, on all nodes.
    Change,
}

/// A row of the table.
#[derive(Debug)]
pub struct Event {
    pub name: &'static str,
    pub deed: Deed,
    /// The size of the routers.
    pub size: Size,
    /// How long a router that starts waits for the API server.
    pub api: f64,
}

impl Event {
    /// Whether it goes its own way with a router of this profile: `sidecar` leaves and
    /// dies differently.
    pub fn shows(&self, profile: Profile) -> bool {
        profile == Profile::Embedded || matches!(self.deed, Drain | BusyDrain | Kill | Roll)
    }
}

use Deed::{BusyDrain, Change, Die, Drain, Freeze, Hang, Kill, Roll, Start};

const fn event(name: &'static str, deed: Deed, size: Size, api: f64) -> Event {
    Event {
        name,
        deed,
        size,
        api,
    }
}

pub const EVENTS: [Event; 13] = [
    event("start", Start, SMALL, 0.0),
    event("start, the API takes 8 s", Start, SMALL, 8.0), // as in the recording
    event("drain", Drain, SMALL, 0.0),
    event("busy drain", BusyDrain, SMALL, 0.0),
    event("hung HAProxy", Hang, SMALL, 0.0),
    event("dead HAProxy", Die, SMALL, 0.0),
    event("frozen", Freeze, SMALL, 0.0),
    event("kill -9", Kill, SMALL, 0.0),
    event("rolling update", Roll, SMALL, 0.0),
    event("3,000 routes change", Change, R3000, 0.0),
    event("10,000 routes change", Change, R10000, 0.0),
    event("30,000 routes change", Change, R30000, 0.0),
    event("50,000 routes change", Change, R50000, 0.0),
];

/// The event of a deed that has only one.
pub fn the(deed: Deed) -> &'static Event {
    let event = EVENTS.iter().find(|event| event.deed == deed);
    event.expect("every deed is in the table")
}

/// The phases: number, check, and what one run on a real cluster counted.
pub const PHASES: [(u32, Check, &str); 5] = [
    (1, Check::Http, "162,804, all 200"),
    (2, Check::Stats, "112,472 of 200, 6 of 503, slowest 3.0 s"),
    (2, Check::Traffic, "-"),
    (3, DEFAULTS, "113,253, all 200"),
    (4, DEFAULTS, "1,000,000, all 200"),
];

/// From the end of the old pod to the exec of the new one on the same node: API
/// server, scheduler, container start (inferred: a few seconds).
const NEW_POD: f64 = 5.0;

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
    pub event: &'static Event,
    pub profile: Profile,
    pub line: Line,
    /// The load, as it was started.
    pub command: String,
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

impl Outcome {
    /// Whether it is about another line of the same event.
    pub fn beside(&self, other: &Outcome) -> bool {
        (self.event.name, self.profile) == (other.event.name, other.profile)
    }
}

/// The lines on which the matrix shows an event: every check in every mode. Only where
/// routes change does the patience of healthport matter.
pub fn lines(event: &Event) -> Vec<Line> {
    let hasty = HASTY.iter().filter(|_| event.deed == Change);
    let modes = [Mode::Http, Mode::Tcp, Mode::NoRetry];
    let checks = CHECKS.iter().chain(hasty);
    checks
        .flat_map(|&check| modes.map(|mode| Line { check, mode }))
        .collect()
}

/// Makes an event happen in a running lab, under load on all its lines at once: all
/// checks see the same router at the same time.
pub fn happen(lab: &mut Lab, event: &'static Event, push: Push) -> Result<Vec<Outcome>> {
    let first = lab.story.failures.len();
    lab.setup.api = event.api;
    if event.deed == Start {
        lab.kill(0)?;
        lab.pause(BROKEN)?;
    }
    lab.load(push)?;
    let start = now();
    lab.pause(RETURNED)?;
    let turns = play(lab, event, push)?;
    lab.settle()?;
    lab.pause(RETURNED)?;
    let loads = lab.unload()?;
    let scale = lab.setup.scale;
    let lines = lab.setup.lines.iter().zip(loads).enumerate();
    let outcome = |(number, (&line, (command, summary)))| {
        let reactions = turns
            .iter()
            .map(|turn| reaction(&lab.story.beliefs, number, *turn));
        let (stopped, sent_again): (Vec<_>, Vec<_>) = reactions.unzip();
        let failures = lab.story.failures[first..].iter();
        let healthy = scale.wait(HEALTHY).as_secs_f64();
        Outcome {
            event,
            profile: lab.setup.profile,
            line,
            command,
            summary,
            failures: failures.filter(|f| f.line == number).cloned().collect(),
            turns: turns.clone(),
            took: now() - start,
            stopped: worst(stopped).map(|time| scale.real(time)),
            sent_again: worst(sent_again).map(|time| scale.real(time)),
            taken_out: taken_out(&lab.story, number, start, healthy),
        }
    };
    Ok(lines.map(outcome).collect())
}

fn play(lab: &mut Lab, event: &Event, push: Push) -> Result<Vec<Turn>> {
    let (node, at) = (0, now());
    match event.deed {
        Start => {}
        Drain => drain(lab, node, None)?,
        BusyDrain => {
            let client = lab.busy_client(node)?;
            drain(lab, node, Some(client))?;
        }
        Hang => lab.hang(node),
        Die => lab.break_haproxy(node),
        Freeze => lab.freeze(node),
        Kill => lab.kill(node)?,
        Roll => return roll(lab, push),
        Change => {
            for _ in 0..CHANGES {
                (0..NODES).for_each(|node| lab.change_route(node));
                lab.pause(1.0)?;
            }
            let ready = now();
            let turn = |node| Turn { node, at, ready };
            return Ok((0..NODES).map(turn).collect());
        }
    }
    if event.deed != Start {
        lab.pause(BROKEN)?;
    }
    if matches!(event.deed, Hang | Freeze) {
        lab.thaw(node);
    } else {
        if event.deed == Die {
            lab.kill(node)?; // the kubelet, once liveness has failed
        }
        lab.start(node)?;
        lab.reach(node, State::Ready)?;
    }
    let ready = ready_since(lab, node);
    Ok(vec![Turn { node, at, ready }])
}

/// Replaces router after router: each once, or until the load has its answers.
fn roll(lab: &mut Lab, push: Push) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    for node in (0..NODES).cycle() {
        let at = now();
        drain(lab, node, None)?;
        lab.pause(NEW_POD)?;
        lab.start(node)?;
        lab.reach(node, State::Ready)?;
        let ready = ready_since(lab, node);
        turns.push(Turn { node, at, ready });
        lab.pause(MIN_READY / 2.0)?;
        lab.change_route(node);
        lab.pause(MIN_READY / 2.0)?;
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

fn drain(lab: &mut Lab, node: usize, client: Option<Arc<TcpStream>>) -> Result<()> {
    lab.delete(node);
    lab.reach(node, State::Gone)?;
    drop(client);
    Ok(())
}

/// When the router said it, not when the lab read it.
fn ready_since(lab: &Lab, node: usize) -> f64 {
    let state = lab.story.state_at(node, f64::MAX);
    state.map_or_else(now, |(_, since)| since)
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
pub fn taken_out(story: &Story, line: usize, start: f64, healthy: f64) -> usize {
    let downs = story.beliefs.iter().filter(|b| !b.up && b.at >= start);
    let of_line = downs.filter(|b| b.line == line);
    let ready = of_line.filter_map(|b| story.ready_for(b.node, b.at));
    ready.filter(|&time| time >= healthy).count()
}
