//! Priorities for the journal. It takes a line without a priority for information, so
//! `journalctl -p err` would show nothing. Where standard error goes to the journal,
//! each line begins with its priority (sd-daemon(3)). Elsewhere simple_logger's lines
//! stay as they are.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::time::Duration;
use std::{env, process, thread};

use log::{Level, Log, Metadata, Record, SetLoggerError};
use simple_logger::SimpleLogger;

/// EX_OSERR of sysexits(3).
pub const SYSTEM: u8 = 71;

pub fn init(logger: SimpleLogger) -> Result<(), SetLoggerError> {
    if !is_stderr() {
        return logger.init();
    }
    log::set_max_level(logger.max_level());
    log::set_boxed_logger(Box::new(Prioritised(logger)))
}

/// Writes an error that ends the program, or keeps it from starting, without using the
/// log. If that fails, nothing can be done about it.
pub fn complain(lines: &str) {
    let priority = if is_stderr() {
        priority(Level::Error)
    } else {
        ""
    };
    let lines = lines.lines().map(|line| format!("{priority}{line}\n"));
    let _ = io::stderr().write_all(lines.collect::<String>().as_bytes());
}

/// Ends the process, which closes the port, and says why. The line may find no reader:
/// the end waits for it for a tenth of a second at most.
pub fn die(line: &str) -> ! {
    let (tell, told) = mpsc::channel();
    let line = format!("healthport: {line}");
    let _ = thread::Builder::new().spawn(move || {
        complain(&line);
        tell.send(())
    });
    let _ = told.recv_timeout(Duration::from_millis(100));
    process::exit(SYSTEM.into())
}

/// Whether systemd's JOURNAL_STREAM, `DEVICE:INODE`, names our standard error. It does
/// not if a process in between has redirected standard error.
fn is_stderr() -> bool {
    let Ok(named) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let ours = stderr.and_then(|stderr| File::from(stderr).metadata());
    ours.is_ok_and(|ours| named == format!("{}:{}", ours.dev(), ours.ino()))
}

struct Prioritised(SimpleLogger);

impl Log for Prioritised {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            // Two writes make one line: hold the lock, so that nothing comes in
            // between.
            let _held = io::stderr().lock();
            eprint!("{}", priority(record.level()));
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}
