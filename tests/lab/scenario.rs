//! What the lab does with its parts, the four phases and the events of the matrix, and
//! what it reads from the story afterwards.

use std::net::TcpStream;
use std::sync::Arc;

use crate::lab::{Belief, Lab, NODES, Setup, Story};
use crate::load::{Push, Summary};
use crate::plan::{Check, Event, MIN_READY, Mode, Profile, Result, State, now};
use crate::switch::{Failure, INTERS, Line};

/// From the end of the old pod to the exec of the new one on the same node: API
/// server, scheduler, container start (inferred: a few seconds).
const NEW_POD: f64 = 5.0;

/// How long a broken router stays broken. The slowest checks need 13 s to notice: two
/// timeouts of healthport and then three bad checks, or three timeouts of an HTTP check.
const BROKEN: f64 = 20.0;

/// From ready to the next event: healthport's probe comes within 1 s, and rise 2 with
/// inter 2 s takes up to 4 s more.
const RETURNED: f64 = 10.0;

/// How many times a route changes in a storm, once a second.
const CHANGES: u32 = 120;

/// A node counts as healthy once it has been ready for so long: by then no check still
/// goes by an older answer, and healthport has opened.
const HEALTHY: f64 = 5.0;

/// A phase's result.
#[derive(Debug)]
pub struct Phase {
    pub number: u32,
    pub check: Check,
    pub command: String,
    pub summary: Summary,
    pub story: Story,
    pub replaced: u32,
    /// Seconds on the clock.
    pub took: f64,
}

/// The rows of the phases' table: number, check.
pub const PHASES: [(u32, Check); 5] = [
    (1, Check::Http),
    (2, Check::Stats),
    (2, Check::Traffic),
    (3, Check::Healthport),
    (4, Check::Healthport),
];

/// Runs one phase. 1 to 3 replace every router once; 4 repeats the rolling update until
/// hey has its number of answers, or runs it once if there is no number.
pub fn phase(number: u32, check: Check, mut setup: Setup, push: Push) -> Result<Phase> {
    let mode = Mode::Http;
    setup.lines = vec![Line { check, mode }];
    setup.title = setup
        .title
        .map(|_| format!("phase {number}, {}", check.name()));
    let mut lab = Lab::open(setup)?;
    let start = now();
    lab.load(push)?;
    let command = lab.load_commands().join("");
    lab.pause(RETURNED)?;
    let rest = if number == 4 { MIN_READY } else { RETURNED };
    let mut replaced = 0;
    loop {
        for node in 0..NODES {
            replace(&mut lab, node, rest)?;
            replaced += 1;
            if push.requests.is_some() && lab.load_has_ended() {
                break;
            }
        }
        if push.requests.is_none() || lab.load_has_ended() {
            break;
        }
    }
    let summary = lab.unload()?.remove(0);
    Ok(Phase {
        number,
        check,
        command,
        summary,
        story: lab.story.clone(),
        replaced,
        took: now() - start,
    })
}

/// Deletes a pod and starts its successor; some time later a route changes.
fn replace(lab: &mut Lab, node: usize, rest: f64) -> Result<Turn> {
    let at = now();
    lab.delete(node);
    lab.reach(node, State::Gone)?;
    lab.pause(NEW_POD)?;
    lab.start(node)?;
    lab.reach(node, State::Ready)?;
    let ready = ready_since(lab, node);
    lab.pause(rest / 2.0)?;
    lab.change_route(node);
    lab.pause(rest / 2.0)?;
    Ok(Turn { node, at, ready })
}

/// What happened to one node during an event: when, and when it was ready again.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub node: usize,
    pub at: f64,
    pub ready: f64,
}

/// A row of the matrix for one line.
#[derive(Debug)]
pub struct Outcome {
    pub event: Event,
    pub profile: Profile,
    pub line: Line,
    pub summary: Summary,
    pub failures: Vec<Failure>,
    pub turns: Vec<Turn>,
    /// Real seconds from the event until the switch stopped sending, in the worst turn;
    /// nothing if it never did.
    pub stopped: Option<f64>,
    /// Real seconds from ready until it sent again; negative if it did so before.
    pub sent_again: Option<f64>,
    /// How often the watches with this check took a healthy node out, by [`INTERS`].
    pub taken_out: [usize; INTERS.len()],
}

/// Makes an event happen in a running lab, under load on all its lines at once: all
/// checks see the same router at the same time.
pub fn happen(lab: &mut Lab, event: Event, push: Push) -> Result<Vec<Outcome>> {
    let first = lab.story.failures.len();
    lab.setup.api = event.api();
    if matches!(event, Event::Start | Event::SlowStart) {
        lab.kill(0)?;
        lab.pause(BROKEN)?;
    }
    lab.load(push)?;
    let start = now();
    lab.pause(RETURNED)?;
    let turns = play(lab, event)?;
    lab.settle()?;
    lab.pause(RETURNED)?;
    let summaries = lab.unload()?;
    let lines = lab.setup.lines.clone();
    let scale = lab.setup.scale;
    let outcome = |(number, (line, summary)): (usize, (Line, Summary))| {
        let reactions = turns
            .iter()
            .map(|turn| reaction(&lab.story.beliefs, number, *turn));
        let (stopped, sent_again): (Vec<_>, Vec<_>) = reactions.unzip();
        let failures = lab.story.failures[first..].iter();
        Outcome {
            event,
            profile: lab.setup.profile,
            line,
            summary,
            failures: failures.filter(|f| f.line == number).cloned().collect(),
            turns: turns.clone(),
            stopped: worst(&stopped).map(|time| scale.real(time)),
            sent_again: worst(&sent_again).map(|time| scale.real(time)),
            taken_out: taken_out(
                &lab.story,
                line.check,
                start,
                scale.wait(HEALTHY).as_secs_f64(),
            ),
        }
    };
    Ok(lines
        .into_iter()
        .zip(summaries)
        .enumerate()
        .map(outcome)
        .collect())
}

fn play(lab: &mut Lab, event: Event) -> Result<Vec<Turn>> {
    let node = 0;
    if event == Event::Rolling {
        return (0..NODES)
            .map(|node| replace(lab, node, MIN_READY))
            .collect();
    }
    let at = now();
    if matches!(event, Event::MediumReloads | Event::LargeReloads) {
        storm(lab, CHANGES)?;
        let ready = now();
        return Ok((0..NODES).map(|node| Turn { node, at, ready }).collect());
    }
    match event {
        Event::Start | Event::SlowStart => {}
        Event::Rolling | Event::MediumReloads | Event::LargeReloads => {}
        Event::Drain => drain(lab, node, None)?,
        Event::BusyDrain => {
            let client = lab.busy_client(node)?;
            drain(lab, node, Some(client))?;
        }
        Event::Hung => lab.hang(node),
        Event::Dead => lab.break_haproxy(node),
        Event::Frozen => lab.freeze(node),
        Event::Killed => lab.kill(node)?,
    }
    if !matches!(event, Event::Start | Event::SlowStart) {
        lab.pause(BROKEN)?;
    }
    if matches!(event, Event::Hung | Event::Frozen) {
        lab.thaw(node);
    } else {
        if event == Event::Dead {
            lab.kill(node)?; // the kubelet, once liveness has failed
        }
        lab.start(node)?;
        lab.reach(node, State::Ready)?;
    }
    let ready = ready_since(lab, node);
    Ok(vec![Turn { node, at, ready }])
}

/// Changes a route every second, on every router.
pub fn storm(lab: &mut Lab, changes: u32) -> Result<()> {
    for _ in 0..changes {
        for node in 0..NODES {
            lab.change_route(node);
        }
        lab.pause(1.0)?;
    }
    Ok(())
}

/// When the router said it, not when the lab read it.
fn ready_since(lab: &Lab, node: usize) -> f64 {
    let state = lab.story.state_at(node, f64::MAX);
    state.map_or_else(now, |(_, since)| since)
}

fn drain(lab: &mut Lab, node: usize, client: Option<Arc<TcpStream>>) -> Result<()> {
    lab.delete(node);
    lab.reach(node, State::Gone)?;
    drop(client);
    Ok(())
}

/// Seconds from the event until the switch stopped sending, and from ready until it sent
/// again. For the latter the last time counts: a check that a start deceives sends
/// before the router is ready.
pub fn reaction(beliefs: &[Belief], line: usize, turn: Turn) -> (Option<f64>, Option<f64>) {
    let later: Vec<_> = beliefs
        .iter()
        .filter(|b| b.line == line && b.node == turn.node && b.at >= turn.at)
        .collect();
    let stopped = later.iter().find(|b| !b.up && b.at < turn.ready);
    let again = later.iter().rev().find(|b| b.up);
    (
        stopped.map(|b| b.at - turn.at),
        again.map(|b| b.at - turn.ready),
    )
}

/// The longest time; nothing if one of them is missing.
fn worst(times: &[Option<f64>]) -> Option<f64> {
    let longest = times.iter().copied().reduce(|a, b| Some(a?.max(b?)));
    longest.flatten()
}

/// How often the watches with a check took a node out although its router had long been
/// ready.
pub fn taken_out(story: &Story, check: Check, start: f64, long: f64) -> [usize; INTERS.len()] {
    let mut counts = [0; INTERS.len()];
    for &(at, watch) in &story.downs {
        let ready = story.ready_for(watch.node, at);
        if watch.check == check && at >= start && ready.is_some_and(|time| time >= long) {
            counts[watch.inter] += 1;
        }
    }
    counts
}
