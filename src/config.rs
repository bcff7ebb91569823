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
        let (interval, timeout) = (Duration::from_secs(1), Duration::from_millis(500));
        Config {
            url: Uri::from_static("http://localhost:1936/healthz/ready"),
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 18898))],
            interval,
            timeout,
            rise: 1,
            fall: 1,
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

/// The default of --max-age: room for two late cycles before the port closes itself.
pub fn default_max_age(interval: Duration, timeout: Duration) -> Duration {
    3 * (interval + timeout)
}

impl Config {
    /// The longest time from the service's first bad answer to a closed port;
    /// like the next two, the duration of one answered probe comes on top, and
    /// takes the interval's place where it is longer.
    pub fn closes_after_bad(&self) -> Duration {
        self.interval * self.fall
    }

    /// The longest time from the service's last sign of life to a closed port.
    pub fn closes_after_hang(&self) -> Duration {
        self.interval + (self.fall - 1) * self.interval.max(self.timeout) + self.timeout
    }

    /// The longest time from the service's first good answer to an open port.
    pub fn opens_after(&self) -> Duration {
        self.interval * self.rise
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
longer than the interval counts in its place):
closes {bad:?} after a bad answer
closes {hang:?} after a hang
opens {good:?} after a good answer
closes {max_age:?} after the last probe, should healthport itself stall
",
            url = self.url,
            listen = self.ports(),
            interval = self.interval,
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
            bad = self.closes_after_bad(),
            hang = self.closes_after_hang(),
            good = self.opens_after(),
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
