//! The proof: a real switch, real load, and routers that come and go, one experiment
//! at any scale:
//!
//!     cargo lab phases
//!
//! `plan` holds the words and numbers, `process` starts programs, `router`, `switch`
//! and `load` are the parts, `lab` puts them together, `scenario` makes things happen,
//! `report` and `picture` show what came of it. The tests are in `tests.rs`; `recorded`
//! holds the answers of a real router that they compare with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub(crate) mod lab;
pub(crate) mod load;
pub(crate) mod picture;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod router;
pub(crate) mod scenario;
pub(crate) mod switch;

use std::env;
use std::ffi::OsString;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lab::{Lab, Setup};
use lexopt::{Arg, Parser, ValueExt};
use load::Push;
use plan::{Check, Event, Mode, Profile, Result, Scale, Size};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use switch::Line;

pub(crate) const HELP: &str = "\
usage: cargo lab WHAT [OPTIONS]

WHAT is phase-1, phase-2, phase-3, phase-4, phases (all four), matrix, timeline

  --scale X      1 for the times of production, 0.1 for a tenth of them [0.1]
  --event NAME   matrix: only events whose name contains NAME
  --rate N       requests per second of each hey [no limit; matrix: 50,
                 timeline: 100]
  --requests N   answers that end phase 4 [1000000]
  --write        put the tables into the pages, the picture into tests/lab/
";

pub(crate) fn main() {
    let result = parse(env::args_os().skip(1)).and_then(|command| match command {
        Command::Help => {
            print!("{HELP}");
            Ok(())
        }
        Command::Router(spec) => router::run(&spec),
        Command::Sidecar(spec) => router::sidecar(&spec),
        Command::Run(run) => perform(&run),
    });
    // Everything that was started has ended by now.
    exit(match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("lab: {error}");
            1
        }
    });
}

pub(crate) enum Command {
    Help,
    Run(Run),
    /// The lab starts its own program as these two.
    Router(router::Spec),
    Sidecar(router::Spec),
}

pub(crate) struct Run {
    what: What,
    scale: Scale,
    event: Option<String>,
    rate: Option<u32>,
    requests: u64,
    write: bool,
}

enum What {
    /// One of them, or all.
    Phases(Option<u32>),
    Matrix,
    Timeline,
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let args: Vec<_> = args.into_iter().collect();
    let own = match args.first().and_then(|first| first.to_str()) {
        Some("--router") => Some(Command::Router as fn(_) -> _),
        Some("--sidecar") => Some(Command::Sidecar as fn(_) -> _),
        _ => None,
    };
    if let Some(command) = own {
        let args: Option<Vec<_>> = args[1..]
            .iter()
            .map(|a| a.to_str().map(String::from))
            .collect();
        let spec = args.and_then(|args| router::Spec::parse(&args));
        return spec.map(command).ok_or("bad --router".to_string());
    }
    options(args).map_err(|error| error.to_string())
}

fn options(args: Vec<OsString>) -> std::result::Result<Command, lexopt::Error> {
    let mut parser = Parser::from_args(args);
    let mut what = None;
    let (mut scale, mut event, mut rate) = (0.1, None, None);
    let (mut requests, mut write) = (1_000_000, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(name) if what.is_none() => {
                what = Some(match name.string()?.as_str() {
                    "phases" => What::Phases(None),
                    "phase-1" => What::Phases(Some(1)),
                    "phase-2" => What::Phases(Some(2)),
                    "phase-3" => What::Phases(Some(3)),
                    "phase-4" => What::Phases(Some(4)),
                    "matrix" => What::Matrix,
                    "timeline" => What::Timeline,
                    other => return Err(format!("'{other}' is unknown: see --help").into()),
                });
            }
            Arg::Long("scale") => {
                scale = parser.value()?.parse()?;
                // A smaller scale would ask healthport for an interval below its 10ms.
                if !(0.01..=10.0).contains(&scale) {
                    return Err(format!("--scale '{scale}' is not in 0.01 to 10").into());
                }
            }
            Arg::Long("event") => event = Some(parser.value()?.string()?),
            Arg::Long("rate") => rate = Some(parser.value()?.parse()?),
            Arg::Long("requests") => requests = parser.value()?.parse()?,
            Arg::Long("write") => write = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected()),
        }
    }
    let run = |what| {
        Command::Run(Run {
            what,
            scale: Scale(scale),
            event,
            rate,
            requests,
            write,
        })
    };
    Ok(what.map_or(Command::Help, run))
}

/// The first Ctrl-C ends the lab in order, the second one at once: the kernel then
/// kills what the lab has started.
fn interrupts() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(&interrupted)))
            .map_err(|error| format!("cannot handle signals: {error}"))?;
    }
    Ok(interrupted)
}

fn perform(run: &Run) -> Result<()> {
    let setup = Setup {
        scale: run.scale,
        profile: Profile::Embedded,
        lines: Vec::new(),
        watches: false,
        size: Size::SMALL,
        api: 0.0,
        maxconn: 0,
        title: Some("starting".to_string()),
        interrupted: interrupts()?,
    };
    match run.what {
        What::Phases(number) => phases(run, number, &setup),
        What::Matrix => matrix(run, &setup),
        What::Timeline => timeline(run, setup),
    }
}

fn phases(run: &Run, number: Option<u32>, setup: &Setup) -> Result<()> {
    let mut done = Vec::new();
    for (phase, check) in scenario::PHASES {
        if number.is_some_and(|number| number != phase) {
            continue;
        }
        let push = Push {
            rate: run.rate,
            requests: (phase == 4).then_some(run.requests),
        };
        let phase = scenario::phase(phase, check, setup.clone(), push)?;
        let command = &phase.command;
        println!("phase {}, {}: {command}\n", phase.number, check.name());
        println!("{}\n", phase.summary.text);
        let list = report::failures(&phase.story.failures, &phase.story, run.scale);
        if !list.is_empty() {
            println!("failed requests, in real seconds:\n{list}");
        }
        done.push(phase);
    }
    let table = report::phases(&done, run.scale);
    println!("{table}");
    if run.write && number.is_none() {
        report::put("../../README.md", "phases", &table)?;
    }
    Ok(())
}

fn matrix(run: &Run, setup: &Setup) -> Result<()> {
    let lines = Mode::ALL.map(|mode| Check::ALL.map(|check| Line { check, mode }));
    // Fifteen heys share the machine with what they measure. At 50 requests per second
    // each, a gap of one second still costs fifty requests.
    let push = Push {
        rate: Some(run.rate.unwrap_or(50)),
        requests: None,
    };
    let wanted = |event: &Event| {
        let name = run.event.as_deref().unwrap_or_default();
        event.name().contains(name)
    };
    if !Event::ALL.iter().any(wanted) {
        let known = Event::ALL.map(Event::name).join("; ");
        return Err(format!("--event is none of: {known}"));
    }
    let mut outcomes = Vec::new();
    for (profile, size) in Profile::ALL
        .into_iter()
        .flat_map(|p| Size::ALL.map(|size| (p, size)))
    {
        let events = Event::ALL.into_iter().filter(wanted);
        let events = events.filter(|e| e.differs_in(profile) && e.size() == size);
        let events: Vec<_> = events.collect();
        if events.is_empty() {
            continue;
        }
        let mut lab = Lab::open(Setup {
            profile,
            size,
            lines: lines.concat(),
            watches: true,
            ..setup.clone()
        })?;
        for event in events {
            lab.setup.title = Some(format!("matrix | {}, {}", event.name(), profile.name()));
            let before = (lab.closes("healthport")?, lab.closes("first")?);
            let happened = scenario::happen(&mut lab, event, push)?;
            println!(
                "{}, {}: healthport closed {} times, as first published {} times",
                event.name(),
                profile.name(),
                lab.closes("healthport")? - before.0,
                lab.closes("first")? - before.1,
            );
            for outcome in &happened {
                let (check, mode) = (outcome.line.check.name(), outcome.line.mode);
                println!(
                    "{}, {}, {check}, {mode:?}: hey counted {} failed, the switch {}",
                    event.name(),
                    profile.name(),
                    outcome.summary.failed(),
                    outcome.failures.len()
                );
                let list = report::failures(&outcome.failures, &lab.story, run.scale);
                print!("{list}");
            }
            outcomes.extend(happened);
        }
    }
    let table = report::matrix(&outcomes);
    println!("\n{table}");
    if run.write && run.event.is_none() {
        report::put("README.md", "matrix", &table)?;
    }
    let worse = report::worse_than_http(&outcomes, run.scale);
    for (outcome, failure) in &worse {
        let (event, profile) = (outcome.event.name(), outcome.profile.name());
        println!("lost by healthport, not by the HTTP check: {event}, {profile}: {failure:?}");
    }
    match worse.len() {
        0 => Ok(()),
        lost => Err(format!(
            "healthport lost {lost} that the HTTP check did not"
        )),
    }
}

fn timeline(run: &Run, setup: Setup) -> Result<()> {
    let mode = Mode::Http;
    let push = Push {
        rate: Some(run.rate.unwrap_or(100)),
        requests: None,
    };
    let mut lab = Lab::open(Setup {
        lines: Check::MAIN.map(|check| Line { check, mode }).to_vec(),
        title: Some("timeline".to_string()),
        ..setup
    })?;
    let outcomes = scenario::happen(&mut lab, Event::Drain, push)?;
    let path = match run.write {
        true => concat!(env!("CARGO_MANIFEST_DIR"), "/timeline.svg").into(),
        false => env::temp_dir().join("timeline.svg"),
    };
    picture::draw(&path, &outcomes, &lab.story, run.scale)?;
    println!("{}", path.display());
    Ok(())
}
