//! Wires the parts together, starts the log and turns a Result into an exit code. The
//! flow is in `daemon.rs`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::{env, panic, process};

use healthport::config::Config;
use healthport::daemon;
use healthport::host::Host;
use healthport::journal::{self, SYSTEM};
use healthport::notify::Notify;
use healthport::options::{self, Command};
use healthport::probe::Prober;
use healthport::reason::reason;
use healthport::responder;
use healthport::signals::Signals;
use healthport::sys;
use log::LevelFilter;
use simple_logger::SimpleLogger;

/// The probe of --once was bad.
const UNHEALTHY: u8 = 1;
/// EX_USAGE of sysexits(3).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // simple_logger panics when stderr is a broken pipe. Exit rather than run
    // without a log: the port closes, and systemd restarts us with a fresh stderr.
    panic::set_hook(Box::new(|panic| {
        journal::complain(&format!("healthport: {panic}"));
        process::exit(SYSTEM.into());
    }));
    let (command, config) = match options::parse(env::args_os().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => {
            journal::complain(&format!("healthport: {error}\nTry 'healthport --help'"));
            return USAGE.into();
        }
    };
    run(command, &config).unwrap_or_else(|error| {
        journal::complain(&format!("healthport: {error}"));
        SYSTEM.into()
    })
}

fn run(command: Command, config: &Config) -> Result<ExitCode, String> {
    match command {
        Command::Help => print(options::HELP),
        Command::Version => print(&version()),
        Command::CheckConfig => print(&config.to_string()),
        Command::Once => {
            log(config)?;
            let outcome = Prober::new(config).once();
            print(&format!(
                "{}: {} {}\n",
                outcome.result, config.url, outcome.sentence
            ))?;
            Ok(if outcome.is_good() {
                ExitCode::SUCCESS
            } else {
                UNHEALTHY.into()
            })
        }
        Command::Run => {
            log(config)?;
            let signals = Signals::new()
                .map_err(|error| format!("cannot handle signals: {}", reason(&error)))?;
            let notify = Notify::from_env();
            let watchdog = notify.watchdog;
            let mut host = Host::new(config, notify, signals);
            // Lock our code in memory: on a stalled disk, a page fault would block the
            // loop and the helpers with the port open. Do it before the first thread
            // starts, or the whole stack of each thread (2 MiB) is locked too.
            if let Err(error) = sys::lock_memory() {
                log::debug!(target: "healthport", "cannot lock the memory: {}", reason(&error));
            }
            if let Some(address) = config.metrics_listen {
                responder::serve(address, config.interval, Arc::clone(&host.metrics))
                    .map_err(|error| format!("cannot serve metrics: {}", reason(&error)))?;
            }
            daemon::run(config, watchdog, &mut host);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A release says which commit it was built from (systemd/package/build).
fn version() -> String {
    let commit = option_env!("HEALTHPORT_COMMIT").map(|commit| format!(" ({commit})"));
    format!(
        "healthport {}{}\n",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or_default()
    )
}

fn print(text: &str) -> Result<ExitCode, String> {
    let printed = io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush());
    printed.map_err(|error| format!("cannot write to standard output: {}", reason(&error)))?;
    Ok(ExitCode::SUCCESS)
}

fn log(config: &Config) -> Result<(), String> {
    let logger = SimpleLogger::new().with_level(config.log_level);
    // Otherwise "ureq" and "ureq_proto" log every step of every probe.
    let logger = logger.with_module_level("ureq", LevelFilter::Warn.min(config.log_level));
    journal::init(logger).map_err(|error| format!("cannot start the log: {error}"))
}
