//! The loop in scripted time: however probes and intervals fall, the pause
//! between two signs of life stays within a quarter of WatchdogSec and one
//! timeout. The unit's WatchdogSec is chosen by that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::time::Duration;

use healthport::config::Config;
use healthport::daemon::{self, World};
use healthport::gate::Port;
use healthport::probe::{Code, Outcome};
use healthport::report::Cycle;
use healthport::signals::Wake;
use log::Level;

/// Every fifth probe hangs until the timeout, the others take 5 ms.
struct Script {
    now: Duration,
    timeout: Duration,
    probes: u32,
    heard: Duration,
    longest_pause: Duration,
    datagrams: u32,
}

impl World for Script {
    fn now(&self) -> Duration {
        self.now
    }

    fn probe(&mut self) -> Outcome {
        self.probes += 1;
        self.now += match self.probes % 5 {
            0 => self.timeout,
            _ => Duration::from_millis(5),
        };
        Outcome {
            code: Code::Ok,
            status: Some(200),
            sentence: "answered 200".to_string(),
        }
    }

    fn drained(&mut self) -> Option<String> {
        None
    }

    fn renew(&mut self) -> bool {
        true
    }

    fn set_port(&mut self, open: bool) -> Vec<Port> {
        vec![if open { Port::Open } else { Port::Closed }]
    }

    fn count(&mut self, _: &Cycle) {}

    fn log(&mut self, _: Level, _: &str) {}

    fn notify(&mut self, assignments: &str) -> io::Result<()> {
        if assignments.contains("WATCHDOG=1") {
            self.longest_pause = self.longest_pause.max(self.now - self.heard);
            self.heard = self.now;
            self.datagrams += 1;
        }
        Ok(())
    }

    fn sleep(&mut self, time: Duration) -> Wake {
        self.now += time;
        match self.probes {
            100.. => Wake::Stop("SIGTERM"),
            _ => Wake::Time,
        }
    }
}

#[test]
fn a_hung_probe_never_looks_like_a_hung_loop() {
    let watchdog = Duration::from_secs(5);
    let timeout = Duration::from_secs(3);
    for interval in [10, 300, 624, 625, 999, 1000, 1250, 1251, 2000, 60_000] {
        let config = Config {
            interval: Duration::from_millis(interval),
            timeout,
            ..Config::default()
        };
        let mut script = Script {
            now: Duration::ZERO,
            timeout,
            probes: 0,
            heard: Duration::ZERO,
            longest_pause: Duration::ZERO,
            datagrams: 0,
        };
        daemon::run(&config, Some(watchdog), &mut script);
        let pause = script.longest_pause;
        assert!(
            pause <= watchdog / 4 + timeout,
            "interval {interval} ms: {pause:?} without a sign of life"
        );
        // And a fast loop does not make systemd work at its pace: two of them
        // are an eighth of WatchdogSec apart, or more.
        let most = script.now.as_millis() / (watchdog.as_millis() / 8) + 2;
        assert!(
            u128::from(script.datagrams) <= most,
            "interval {interval} ms: {} signs of life in {:?}",
            script.datagrams,
            script.now
        );
    }
}
