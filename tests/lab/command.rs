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
use std::fs;
use std::process::exit;

use lab::{Lab, Setup};
use lexopt::{Arg, Parser, ValueExt};
use load::Push;
use plan::{CHECKS, DEFAULTS, HEALTHPORTS, Profile, Result, Scale};
use scenario::{Deed, EVENTS, PHASES, happen};

pub(crate) const HELP: &str = "\
usage: cargo lab WHAT [OPTIONS]

WHAT is phases, matrix, timeline

  --scale X      1 for the times of production, 0.1 for a tenth of them [0.1]
  --event NAME   matrix: only events whose name contains NAME
  --rate N       requests per second of each hey [no limit; matrix: 50,
                 timeline: 100]
  --requests N   answers that end phase 4 [1000000]
  --write        put the tables into the pages, the picture into tests/lab/
";

#[derive(Debug)]
pub(crate) struct Run {
    what: fn(&Run) -> Result<()>,
    scale: f64,
    event: String,
    rate: Option<u32>,
    requests: u64,
    write: bool,
}

fn main() {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let words = args.iter().map(|arg| arg.to_string_lossy().into());
    let words: Vec<String> = words.collect();
    let spec = || router::Spec::parse(&words[1..]).ok_or("bad arguments of a router".to_string());
    // The lab starts its own program as these two.
    let result = match words.first().map(String::as_str) {
        Some("--router") => spec().and_then(|spec| router::run(&spec)),
        Some("--sidecar") => spec().and_then(|spec| router::sidecar(&spec)),
        _ => parse(args)
            .map_err(|error| error.to_string())
            .and_then(|run| (run.what)(&run)),
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
        what: help,
        scale: 0.1,
        event: String::new(),
        rate: None,
        requests: 1_000_000,
        write: false,
    };
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(name) => {
                run.what = match &*name.string()? {
                    "phases" => phases,
                    "matrix" => matrix,
                    "timeline" => timeline,
                    name => return Err(format!("'{name}' is unknown: see --help").into()),
                }
            }
            Arg::Long("scale") => {
                run.scale = parser.value()?.parse()?;
                // A smaller scale would ask healthport for an interval below its 10ms.
                if !(0.01..=10.0).contains(&run.scale) {
                    return Err(format!("--scale '{}' is not in 0.01 to 10", run.scale).into());
                }
            }
            Arg::Long("event") => run.event = parser.value()?.string()?,
            Arg::Long("rate") => run.rate = Some(parser.value()?.parse()?),
            Arg::Long("requests") => run.requests = parser.value()?.parse()?,
            Arg::Long("write") => run.write = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(Run { what: help, ..run }),
            other => return Err(other.unexpected()),
        }
    }
    Ok(run)
}

fn help(_: &Run) -> Result<()> {
    print!("{HELP}");
    Ok(())
}

fn push(run: &Run, rate: u32) -> Push {
    Push {
        rate: Some(run.rate.unwrap_or(rate)),
        requests: None,
    }
}

fn phases(run: &Run) -> Result<()> {
    let scale = Scale(run.scale);
    let mut table = report::PHASES.to_string();
    for (phase, check, cluster) in PHASES {
        let push = Push {
            rate: run.rate,
            requests: (phase == 4).then_some(run.requests),
        };
        let mut lab = Lab::open(Setup::new(scale, &[check]))?;
        for outcome in happen(&mut lab, Deed::Roll, push)? {
            println!("phase {phase}, {check}:\n\n{}\n", outcome.summary.text);
            print!("{}", report::failures(&outcome.failures, &lab.story, scale));
            table += &report::phase(phase, &outcome, cluster, scale);
        }
    }
    println!("{table}");
    if run.write {
        report::put("../../README.md", "phases", &table)?;
    }
    Ok(())
}

fn matrix(run: &Run) -> Result<()> {
    let scale = Scale(run.scale);
    let mut table = report::MATRIX.to_string();
    let mut lost = 0;
    for profile in [Profile::Embedded, Profile::Sidecar] {
        let events = EVENTS.iter().filter(|(_, deed)| deed.shows(profile));
        for (name, deed) in events.filter(|(name, _)| name.contains(&run.event)) {
            let mut lab = Lab::open(Setup {
                profile,
                routes: deed.routes(),
                lines: deed.lines(),
                ..Setup::new(scale, &[])
            })?;
            // Up to twelve heys share the machine with what they measure. At 50 requests
            // per second each, a gap of one second still costs fifty requests.
            let outcomes = happen(&mut lab, *deed, push(run, 50))?;
            for outcome in &outcomes {
                let (line, failures) = (outcome.line, &outcome.failures);
                let (hey, switch) = (outcome.summary.failed, failures.len());
                let what = format!(
                    "{name}, {profile}, {}, {} retries",
                    line.check, line.retries
                );
                println!("{what}: hey counted {hey} failed, the switch {switch}");
                print!("{}", report::failures(failures, &lab.story, scale));
                if line.check == DEFAULTS && deed.is_announced() {
                    lost += hey;
                }
            }
            for check in HEALTHPORTS.iter().filter(|check| lab.setup.asks(**check)) {
                let closes = lab.closes(*check)?;
                println!("{name}, {profile}, {check}: closed {closes} times");
            }
            table += &report::rows(name, &profile.to_string(), *deed, &outcomes);
        }
    }
    if table == report::MATRIX {
        return Err(format!("no --event has '{}' in its name", run.event));
    }
    println!("\n{table}");
    if run.write && run.event.is_empty() {
        report::put("README.md", "matrix", &table)?;
    }
    match lost {
        0 => Ok(()),
        _ => Err(format!(
            "healthport lost {lost} though the router had said so"
        )),
    }
}

fn timeline(run: &Run) -> Result<()> {
    let scale = Scale(run.scale);
    let mut lab = Lab::open(Setup::new(scale, &CHECKS))?;
    let outcomes = happen(&mut lab, Deed::Drain, push(run, 100))?;
    let path = match run.write {
        true => concat!(env!("CARGO_MANIFEST_DIR"), "/timeline.svg").into(),
        false => env::temp_dir().join("timeline.svg"),
    };
    let picture = picture::draw(&outcomes, &lab.story, scale);
    fs::write(&path, picture).map_err(|error| format!("cannot write {path:?}: {error}"))?;
    println!("{}", path.display());
    Ok(())
}
