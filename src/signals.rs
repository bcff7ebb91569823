//! Signals, and the sleep that they end. SIGTERM and SIGINT stop the program, SIGUSR1
//! asks for a report. A stop must close the port within milliseconds, whatever the loop
//! is doing, so outside the sleep the handler itself ends the process.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

use crate::sys::{self, POLLIN};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    Time,
    /// SIGUSR1: report and probe at once.
    Report,
    /// SIGTERM or SIGINT, by name.
    Stop(&'static str),
}

/// The process's signals; create it once.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicUsize>,
    report: Arc<AtomicBool>,
    /// While set, a stop signal ends the process from its handler, and the kernel
    /// closes the port. That takes 0.5 ms, even while a probe hangs or a log line waits
    /// for a reader. Cleared only where the loop itself checks `stop`.
    exit_at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGUSR1.
    ///
    /// # Errors
    /// The system's, if it refuses a socket pair or a handler.
    pub fn new() -> io::Result<Signals> {
        let (wake, ring) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let signals = Signals {
            wake,
            stop: Arc::default(),
            report: Arc::default(),
            exit_at_once: Arc::new(AtomicBool::new(true)),
        };
        // The handlers of a signal run in the order of their registration: the flags
        // must be set before the pipe wakes the loop, which checks them.
        for stop in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(stop, 0, Arc::clone(&signals.exit_at_once))?;
            flag::register_usize(stop, Arc::clone(&signals.stop), stop as usize)?;
            low_level::pipe::register(stop, ring.try_clone()?)?;
        }
        flag::register(SIGUSR1, Arc::clone(&signals.report))?;
        low_level::pipe::register(SIGUSR1, ring)?;
        Ok(signals)
    }

    /// Sleeps for `time`, or until a signal comes. One that came since the last sleep
    /// ends this one at once.
    pub fn sleep(&self, time: Duration) -> Wake {
        let end = Instant::now() + time;
        self.exit_at_once.store(false, Ordering::SeqCst);
        let wake = self.wait(end);
        self.exit_at_once.store(true, Ordering::SeqCst);
        // A stop between the last check and the store above has only set its flag.
        self.stopped().unwrap_or(wake)
    }

    fn wait(&self, end: Instant) -> Wake {
        loop {
            if let Some(stop) = self.stopped() {
                return stop;
            }
            if self.is_asked() {
                return Wake::Report;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Wake::Time;
            }
            // Whatever ended the wait (a wake-up byte, EINTR, the timeout), check the
            // flags and the clock again.
            if sys::wait(&self.wake, POLLIN, left).unwrap_or(false) {
                let _ = (&self.wake).read(&mut [0; 64]);
            }
        }
    }

    /// Whether SIGUSR1 has come since it was last asked about.
    pub fn is_asked(&self) -> bool {
        self.report.swap(false, Ordering::SeqCst)
    }

    fn stopped(&self) -> Option<Wake> {
        match self.stop.load(Ordering::SeqCst) as i32 {
            0 => None,
            SIGINT => Some(Wake::Stop("SIGINT")),
            _ => Some(Wake::Stop("SIGTERM")),
        }
    }
}
