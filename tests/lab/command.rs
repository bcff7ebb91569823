//! The proof: a real switch, real load, and routers that come and go, one experiment
//! at any scale:
//!
//!     cargo lab phases
//!
//! `plan` holds the words and numbers, `process` starts programs, `router`, `switch`
//! and `load` are the parts, `lab` puts them together, `scenario` is the table of what
//! happens, `report` and `picture` show what came of it. The tests are in `tests.rs`;
//! `recorded` holds the answers of a real router that they compare with.
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
use plan::{CHECKS, Check, Profile, Result, SIZES, Scale};
use scenario::{Deed, EVENTS, Outcome, PHASES, happen, lines, the};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

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

const WHAT: [&str; 7] = [
    "phases", "phase-1", "phase-2", "phase-3", "phase-4", "matrix", "timeline",
];

#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Nothing if only help is asked for.
    what: Option<String>,
    scale: f64,
    event: Option<String>,
    rate: Option<u32>,
    requests: u64,
    write: bool,
    /// Set by the first Ctrl-C.
    interrupted: Arc<AtomicBool>,
}

fn main() {
    let args: Vec<_> = env::args_os().skip(1).collect();
    // The lab starts its own program as these two.
    let own = args.first().and_then(|first| first.to_str());
    let spec = || {
        let args = args.iter().skip(1);
        let spec = router::Spec::parse(args.filter_map(|arg| arg.to_str().map(String::from)));
        spec.ok_or("bad arguments of a router".to_string())
    };
    let result = match own {
        Some("--router") => spec().and_then(|spec| router::run(&spec)),
        Some("--sidecar") => spec().and_then(|spec| router::sidecar(&spec)),
        _ => parse(args)
            .map_err(|error| error.to_string())
            .and_then(|run| perform(&run)),
    };
    // Everything that was started has ended by now.
    if let Err(error) = result {
        eprintln!("lab: {error}");
        exit(1);
    }
}

pub(crate) fn parse(args: Vec<OsString>) -> std::result::Result<Run, lexopt::Error> {
    let mut parser = Parser::from_args(args);
    let mut run = Run {
        scale: 0.1,
        requests: 1_000_000,
        ..Run::default()
    };
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(name) if run.what.is_none() => {
                let name = name.string()?;
                if !WHAT.contains(&&*name) {
                    return Err(format!("'{name}' is unknown: see --help").into());
                }
                run.what = Some(name);
            }
            Arg::Long("scale") => {
                run.scale = parser.value()?.parse()?;
                // A smaller scale would ask healthport for an interval below its 10ms.
                if !(0.01..=10.0).contains(&run.scale) {
                    return Err(format!("--scale '{}' is not in 0.01 to 10", run.scale).into());
                }
            }
            Arg::Long("event") => run.event = Some(parser.value()?.string()?),
            Arg::Long("rate") => run.rate = Some(parser.value()?.parse()?),
            Arg::Long("requests") => run.requests = parser.value()?.parse()?,
            Arg::Long("write") => run.write = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(Run::default()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(run)
}

fn perform(run: &Run) -> Result<()> {
    // The first Ctrl-C ends the lab in order, the second one at once: the kernel then
    // kills what the lab has started.
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&run.interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(&run.interrupted)))
            .map_err(|error| format!("cannot handle signals: {error}"))?;
    }
    match run.what.as_deref() {
        None => print!("{HELP}"),
        Some("matrix") => matrix(run)?,
        Some("timeline") => timeline(run)?,
        Some(all_or_one) => phases(run, all_or_one)?,
    }
    Ok(())
}

/// A setup that reports its progress.
fn setup(run: &Run, checks: &[Check], title: &str) -> Setup {
    Setup {
        title: Some(title.to_string()),
        interrupted: Arc::clone(&run.interrupted),
        ..Setup::new(Scale(run.scale), checks)
    }
}

fn push(run: &Run, rate: u32) -> Push {
    Push {
        rate: Some(run.rate.unwrap_or(rate)),
        requests: None,
    }
}

fn phases(run: &Run, what: &str) -> Result<()> {
    let scale = Scale(run.scale);
    let mut done = Vec::new();
    for (phase, check, cluster) in PHASES {
        if what != "phases" && what != format!("phase-{phase}") {
            continue;
        }
        let push = Push {
            rate: run.rate,
            requests: (phase == 4).then_some(run.requests),
        };
        let title = format!("phase {phase}, {check}");
        let mut lab = Lab::open(setup(run, &[check], &title))?;
        let outcome = happen(&mut lab, the(Deed::Roll), push)?.remove(0);
        println!("{title}: {}\n\n{}\n", outcome.command, outcome.summary.text);
        let list = report::failures(&outcome.failures, &lab.story, scale);
        if !list.is_empty() {
            println!("failed requests, in real seconds:\n{list}");
        }
        done.push((phase, outcome, cluster));
    }
    let table = report::phases(&done, scale);
    println!("{table}");
    if run.write && what == "phases" {
        report::put("../../README.md", "phases", &table)?;
    }
    Ok(())
}

fn matrix(run: &Run) -> Result<()> {
    let name = run.event.as_deref().unwrap_or_default();
    let wanted = || EVENTS.iter().filter(|event| event.name.contains(name));
    if wanted().next().is_none() {
        let known = EVENTS.each_ref().map(|event| event.name).join("; ");
        return Err(format!("--event is none of: {known}"));
    }
    let scale = Scale(run.scale);
    let mut outcomes: Vec<Outcome> = Vec::new();
    // One lab for all events of a profile with routers of one size.
    for (profile, size) in Profile::ALL
        .into_iter()
        .flat_map(|profile| SIZES.map(|size| (profile, size)))
    {
        let events = wanted().filter(|e| e.shows(profile) && e.size == size);
        let mut lab: Option<Lab> = None;
        for event in events {
            let title = format!("{}, {}", event.name, profile);
            let lab = match &mut lab {
                Some(lab) => lab,
                none => none.insert(Lab::open(Setup {
                    profile,
                    size,
                    lines: lines(event),
                    ..setup(run, &[], &title)
                })?),
            };
            lab.setup.title = Some(title.clone());
            // Up to eighteen heys share the machine with what they measure. At 50 requests
            // per second each, a gap of one second still costs fifty requests.
            for outcome in happen(lab, event, push(run, 50))? {
                println!(
                    "{title}, {}, {:?}: hey counted {} failed, the switch {}",
                    outcome.line.check,
                    outcome.line.mode,
                    outcome.summary.failed(),
                    outcome.failures.len()
                );
                print!("{}", report::failures(&outcome.failures, &lab.story, scale));
                outcomes.push(outcome);
            }
            let mut checks: Vec<_> = lab.setup.lines.iter().map(|line| line.check).collect();
            checks.dedup();
            for check in checks {
                if let Check::Healthport(..) = check {
                    let closes = lab.closes(check)?;
                    println!("{title}, {check}: closed {closes} times since its start");
                }
            }
        }
    }
    let table = report::matrix(&outcomes);
    println!("\n{table}");
    if run.write && run.event.is_none() {
        report::put("README.md", "matrix", &table)?;
    }
    let worse = report::worse_than_http(&outcomes, scale);
    for (outcome, failure) in &worse {
        let (event, profile) = (outcome.event.name, outcome.profile);
        println!("lost by healthport, not by the HTTP check: {event}, {profile}: {failure:?}");
    }
    match worse.len() {
        0 => Ok(()),
        lost => Err(format!(
            "healthport lost {lost} that the HTTP check did not"
        )),
    }
}

fn timeline(run: &Run) -> Result<()> {
    let mut lab = Lab::open(setup(run, &CHECKS, "timeline"))?;
    let outcomes = happen(&mut lab, the(Deed::Drain), push(run, 100))?;
    let path = match run.write {
        true => concat!(env!("CARGO_MANIFEST_DIR"), "/timeline.svg").into(),
        false => env::temp_dir().join("timeline.svg"),
    };
    picture::draw(&path, &outcomes, &lab.story, Scale(run.scale))?;
    println!("{}", path.display());
    Ok(())
}
