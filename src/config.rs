//! What the program was asked to do, and the worst-case times that follow from it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use ureq::http::{HeaderName, HeaderValue, Method, Uri};

/// The settings, each named after its option. `Config::default()` holds the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// --url: http, with a host, without user information.
    pub url: Uri,
    /// --listen: at least one.
    pub listen: Vec<SocketAddr>,
    /// --interval, start to start.
    pub interval: Duration,
    pub fast_interval: Option<Duration>,
    /// --timeout, for a whole exchange.
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    pub expect_status: StatusList,
    pub expect_body: Option<String>,
    pub method: Method,
    pub header: Vec<(HeaderName, HeaderValue)>,
    pub drain_file: Option<PathBuf>,
    /// --max-age: how long the loop may stand still.
    pub max_age: Duration,
    pub metrics_listen: Option<SocketAddr>,
    pub log_level: LevelFilter,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            url: Uri::from_static("http://localhost:1936/healthz/ready"),
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 18898))],
            interval: Duration::from_secs(1),
            fast_interval: None,
            // "Large routers" in README.md says why.
            timeout: Duration::from_secs(10),
            rise: 1,
            // One late answer must not close the port, least of all on every node at once.
            fall: 2,
            expect_status: StatusList(vec![200..=200]),
            expect_body: None,
            method: Method::GET,
            header: Vec::new(),
            drain_file: None,
            max_age: Duration::from_secs(4),
            metrics_listen: None,
            log_level: LevelFilter::Info,
        }
    }
}

/// The loop is never away for longer: at every beat it renews the lease, tells the
/// watchdog and checks for the drain file.
pub const BEAT: Duration = Duration::from_secs(1);

impl Config {
    /// The time between the starts of two probes while a change is being counted. The
    /// default of ten a second costs a router 1 % of a core (0.95 ms each, measured).
    pub fn fast_interval(&self) -> Duration {
        let default = self.interval.min(Duration::from_millis(100));
        self.fast_interval.unwrap_or(default)
    }

    /// How old the last good answer can get while the port is open and the loop moves:
    /// until `fall` probes have timed out, or the loop has stood still for nearly
    /// --max-age, and half a beat.
    pub fn max_evidence(&self) -> Duration {
        let hang = self.closes_after_hang(Duration::ZERO);
        hang.max(self.interval + self.max_age) + BEAT / 2
    }

    /// The longest time from the moment the service turns bad to a closed port, if each
    /// answer takes `probe`.
    pub fn closes_after_bad(&self, probe: Duration) -> Duration {
        self.counts(self.fall, probe, probe)
    }

    /// The longest time from the moment the service hangs to a closed port, if its
    /// answers until then took `probe`.
    pub fn closes_after_hang(&self, probe: Duration) -> Duration {
        self.counts(self.fall, probe, self.timeout)
    }

    /// The longest time from the moment the service turns good to an open port, if each
    /// answer takes `probe`.
    pub fn opens_after(&self, probe: Duration) -> Duration {
        self.counts(self.rise, probe, probe)
    }

    /// How long `count` equal results take if the service changes just after a probe
    /// that took `before`, and each probe that counts the change takes `probe`. A probe
    /// that takes longer than its interval, fast or not, is followed at once by the
    /// next.
    fn counts(&self, count: u32, before: Duration, probe: Duration) -> Duration {
        self.interval.max(before) + (count - 1) * self.fast_interval().max(probe) + probe
    }

    /// The listening addresses as a comma-separated list.
    pub fn ports(&self) -> String {
        let list: Vec<_> = self.listen.iter().map(SocketAddr::to_string).collect();
        list.join(", ")
    }

    /// The worst-case times in words, with which --check-config ends.
    pub fn worst_cases(&self) -> String {
        format!(
            "\
worst-case times, each plus the duration of one answered probe (a probe that
takes longer than its interval counts in place of the interval):
closes {:?} after a bad answer
closes {:?} after a hang
opens {:?} after a good answer
closes {:?} after the loop stands still
",
            self.closes_after_bad(Duration::ZERO),
            self.closes_after_hang(Duration::ZERO),
            self.opens_after(Duration::ZERO),
            self.max_age,
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusList(Vec<RangeInclusive<u16>>);

impl StatusList {
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl fmt::Display for StatusList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.0.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for StatusList {
    type Err = ();

    fn from_str(list: &str) -> Result<StatusList, ()> {
        let code = |text: &str| match text.parse() {
            // 1xx is never a final answer.
            Ok(code @ 200..=599) if text.len() == 3 => Ok(code),
            _ => Err(()),
        };
        let range = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let range = code(first)?..=code(last)?;
            if range.is_empty() { Err(()) } else { Ok(range) }
        };
        list.split(',')
            .map(range)
            .collect::<Result<_, _>>()
            .map(StatusList)
    }
}
