//! What the program was asked to do, and the worst-case times that follow from it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use ureq::http::{HeaderName, HeaderValue, Method, Uri};

/// The resolved settings; `Config::default()` are the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// --url: http, with a host, without user information.
    pub url: Uri,
    /// --listen: at least one.
    pub listen: Vec<SocketAddr>,
    /// --interval, start to start.
    pub interval: Duration,
    /// --fast-interval, start to start while a change is being counted.
    pub fast_interval: Duration,
    /// --timeout, for a whole exchange.
    pub timeout: Duration,
    /// --rise, in probes.
    pub rise: u32,
    /// --fall, in probes.
    pub fall: u32,
    /// --expect-status.
    pub expect_status: StatusList,
    /// --expect-body, not empty.
    pub expect_body: Option<String>,
    /// --method.
    pub method: Method,
    /// --header, in their order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// --drain-file.
    pub drain_file: Option<PathBuf>,
    /// --max-age.
    pub max_age: Duration,
    /// --metrics-listen.
    pub metrics_listen: Option<SocketAddr>,
    /// --log-level.
    pub log_level: LevelFilter,
}

impl Default for Config {
    fn default() -> Config {
        // A router with 10,000 routes that is ready answers after up to 1.9 s while it
        // writes its configuration, and one whose HAProxy hangs says so after 2 s.
        let (interval, timeout) = (Duration::from_secs(1), Duration::from_secs(3));
        Config {
            url: Uri::from_static("http://localhost:1936/healthz/ready"),
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 18898))],
            interval,
            fast_interval: default_fast_interval(interval),
            timeout,
            rise: 1,
            // All routers write their configurations at the same moment: one late
            // answer is no reason to leave, least of all for every node at once.
            fall: 2,
            expect_status: StatusList(vec![200..=200]),
            expect_body: None,
            method: Method::GET,
            headers: Vec::new(),
            drain_file: None,
            max_age: default_max_age(interval, timeout),
            metrics_listen: None,
            log_level: LevelFilter::Info,
        }
    }
}

/// The default of --fast-interval: ten probes a second cost a router 1 % of a core
/// (0.95 ms each, measured), and only while a change is being counted.
pub fn default_fast_interval(interval: Duration) -> Duration {
    interval.min(Duration::from_millis(100))
}

/// The default of --max-age: two probes end at most interval + timeout apart, so
/// the loop may stand still for as long again before the port closes itself.
pub fn default_max_age(interval: Duration, timeout: Duration) -> Duration {
    2 * (interval + timeout)
}

impl Config {
    /// The longest time from the service's first bad answer to a closed port, if
    /// each answer takes `probe`.
    pub fn closes_after_bad(&self, probe: Duration) -> Duration {
        self.counts(self.fall, probe, probe)
    }

    /// The longest time from the service's last sign of life to a closed port, if
    /// the answers before took `probe`.
    pub fn closes_after_hang(&self, probe: Duration) -> Duration {
        self.counts(self.fall, probe, self.timeout)
    }

    /// The longest time from the service's first good answer to an open port, if
    /// each answer takes `probe`.
    pub fn opens_after(&self, probe: Duration) -> Duration {
        self.counts(self.rise, probe, probe)
    }

    /// How long `count` equal results take: the change comes just after a probe that
    /// takes `before`, the probes that count it take `probe` each. A probe that takes
    /// longer than the interval, fast or not, is followed by the next at once.
    fn counts(&self, count: u32, before: Duration, probe: Duration) -> Duration {
        self.interval.max(before) + (count - 1) * self.fast_interval.max(probe) + probe
    }

    /// The listening addresses as one word list.
    pub fn ports(&self) -> String {
        let list: Vec<_> = self.listen.iter().map(SocketAddr::to_string).collect();
        list.join(", ")
    }
}

/// What --check-config prints. Header values may be secrets and are left out.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off = || "off".to_string();
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(
            f,
            "\
url            {url}
listen         {listen}
interval       {interval:?}
fast-interval  {fast_interval:?}
timeout        {timeout:?}
rise           {rise}
fall           {fall}
expect-status  {expect_status}
expect-body    {expect_body}
method         {method}
header         {header}
drain-file     {drain_file}
max-age        {max_age:?}
metrics-listen {metrics_listen}
log-level      {log_level}

worst-case times, each plus the duration of one answered probe (one that takes
longer than an interval counts in its place):
closes {bad:?} after a bad answer
closes {hang:?} after a hang
opens {good:?} after a good answer
closes {max_age:?} after the last probe, should healthport itself stall
",
            url = self.url,
            listen = self.ports(),
            interval = self.interval,
            fast_interval = self.fast_interval,
            timeout = self.timeout,
            rise = self.rise,
            fall = self.fall,
            expect_status = self.expect_status,
            expect_body = self.expect_body.clone().unwrap_or_else(off),
            method = self.method,
            header = Some(headers.join(", "))
                .filter(|list| !list.is_empty())
                .unwrap_or_else(off),
            drain_file = self
                .drain_file
                .as_ref()
                .map_or_else(off, |path| path.display().to_string()),
            max_age = self.max_age,
            metrics_listen = self
                .metrics_listen
                .map_or_else(off, |address| address.to_string()),
            log_level = self.log_level.as_str().to_lowercase(),
            bad = self.closes_after_bad(Duration::ZERO),
            hang = self.closes_after_hang(Duration::ZERO),
            good = self.opens_after(Duration::ZERO),
        )
    }
}

/// Status codes and ranges of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusList(Vec<RangeInclusive<u16>>);

impl StatusList {
    /// Whether `status` is in the list.
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
