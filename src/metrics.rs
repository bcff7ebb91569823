//! The counters and their Prometheus text. The loop only stores numbers here and
//! takes no lock, so that no reader can delay it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::accept::{Connections, unix_millis};
use crate::cycle::Cycle;
use crate::lease::Lease;
use crate::ports::{Ports, State};
use crate::probe::{Outcome, ProbeResult};

/// Upper bounds of the histogram, in microseconds. A local answer takes a millisecond, that
/// of a router with a stuck HAProxy slightly more than 2.0 s.
#[rustfmt::skip] // two rows
const BUCKETS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000, 20_000_000,
];

/// What the loop, the helpers and the lease know, for /metrics.
#[derive(Debug)]
pub struct Metrics {
    lease: Arc<Lease>,
    connections: Arc<Connections>,
    counters: Counters,
    started: u64,
}

/// What the loop counts. Times are milliseconds since 1970, 0 = never.
#[derive(Debug, Default)]
struct Counters {
    open: AtomicBool,
    success: AtomicBool,
    drained: AtomicBool,
    status: AtomicU64,
    results: [AtomicU64; ProbeResult::ALL.len()],
    buckets: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    listen_errors: AtomicU64,
    lease_expired: AtomicU64,
    last_transition: AtomicU64,
    last_success: AtomicU64,
}

impl Metrics {
    /// Starts all counters of these ports at zero.
    pub fn new(ports: &Ports) -> Metrics {
        Metrics {
            lease: Arc::clone(&ports.lease),
            connections: Arc::clone(&ports.connections),
            counters: Counters::default(),
            started: unix_millis(),
        }
    }

    pub fn count(&self, cycle: &Cycle) {
        self.counters.count(cycle, unix_millis());
    }

    pub fn is_live(&self) -> bool {
        self.lease.is_running()
    }

    /// Whether the port is open. When the lease expires, the helper closes it, and what
    /// the loop stored last is no longer true.
    pub fn is_open(&self) -> bool {
        self.counters.open.load(Relaxed) && self.is_live()
    }

    /// The Prometheus text exposition format, version 0.0.4.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, kind, help, samples) in self.table() {
            text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in samples {
                text += &format!("{name}{labels} {value}\n");
            }
        }
        text
    }

    /// One line per metric: its name, kind and help, and its samples.
    #[rustfmt::skip]
    fn table(&self) -> [(&str, &str, &str, Samples); 15] {
        let (c, checks) = (&self.counters, &self.connections);
        let one = |value: String| vec![(String::new(), value)];
        let flag = |flag: bool| one(u8::from(flag).to_string());
        let count = |counter: &AtomicU64| counter.load(Relaxed).to_string();
        let time = |millis: u64| one(fraction(millis, 1_000));
        let at = |millis: &AtomicU64| time(millis.load(Relaxed));
        let by_result = |result| (format!("{{result=\"{result}\"}}"), count(&c.results[result as usize]));
        let by_state = |(to, counter): (&str, &AtomicU64)| (format!("{{to=\"{to}\"}}"), count(counter));
        let version = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}").to_string();
        [
            ("healthport_up", "gauge", "1 while the port is open.", flag(self.is_open())),
            ("healthport_probe_success", "gauge", "1 if the last probe was good, before rise and fall.", flag(c.success.load(Relaxed))),
            ("healthport_probe_http_status_code", "gauge", "HTTP status of the last probe, 0 = no answer.", one(count(&c.status))),
            ("healthport_probe_duration_seconds", "histogram", "How long probes took.", c.durations()),
            ("healthport_probes_total", "counter", "Probes by result.", ProbeResult::ALL.map(by_result).into()),
            ("healthport_transitions_total", "counter", "How often the port opened or closed.", [("open", &c.opened), ("closed", &c.closed)].map(by_state).into()),
            ("healthport_last_transition_timestamp_seconds", "gauge", "When the port last changed, 0 = never.", at(&c.last_transition)),
            ("healthport_last_success_timestamp_seconds", "gauge", "When a probe was last good, 0 = never.", at(&c.last_success)),
            ("healthport_connections_total", "counter", "Checks accepted on the port.", one(checks.count().to_string())),
            ("healthport_last_connection_timestamp_seconds", "gauge", "When a check was last accepted, 0 = never.", time(checks.last())),
            ("healthport_listen_errors_total", "counter", "Attempts to reserve or open an address that the system refused.", one(count(&c.listen_errors))),
            ("healthport_lease_expirations_total", "counter", "How often the lease of an open port expired because the loop stood still.", one(count(&c.lease_expired))),
            ("healthport_drained", "gauge", "1 while the drain file keeps the port closed.", flag(c.drained.load(Relaxed))),
            ("healthport_build_info", "gauge", "Always 1.", vec![(version, "1".to_string())]),
            ("process_start_time_seconds", "gauge", "When the process started.", time(self.started)),
        ]
    }
}

/// What follows a metric's name, and the value.
type Samples = Vec<(String, String)>;

impl Counters {
    fn count(&self, cycle: &Cycle, now: u64) {
        if let (Some(took), Some(outcome)) = (cycle.took, cycle.outcome) {
            self.count_probe(took, outcome, now);
        }
        self.drained.store(cycle.drained.is_some(), Relaxed);
        let failed = |port: &&State| matches!(port, State::Failed(_));
        let failed = cycle.ports.iter().filter(failed).count();
        self.listen_errors.fetch_add(failed as u64, Relaxed);
        self.lease_expired.fetch_add(cycle.expired.into(), Relaxed);
        // The lease closed the port before this cycle, which may have opened it again.
        if cycle.expired {
            self.port(false, now);
        }
        self.port(cycle.ports.contains(&State::Open), now);
    }

    fn count_probe(&self, took: Duration, outcome: &Outcome, now: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|&bound| micros <= bound);
        self.buckets[bucket.unwrap_or(BUCKETS.len())].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(micros, Relaxed);
        self.results[outcome.result as usize].fetch_add(1, Relaxed);
        let status = outcome.status.unwrap_or(0);
        self.status.store(status.into(), Relaxed);
        self.success.store(outcome.is_good(), Relaxed);
        if outcome.is_good() {
            self.last_success.store(now, Relaxed);
        }
    }

    fn port(&self, open: bool, now: u64) {
        if self.open.swap(open, Relaxed) != open {
            let transitions = if open { &self.opened } else { &self.closed };
            transitions.fetch_add(1, Relaxed);
            self.last_transition.store(now, Relaxed);
        }
    }

    /// The histogram. Its count is the sum of the buckets, so that the two agree in
    /// every scrape.
    fn durations(&self) -> Samples {
        let mut probes = 0;
        let bound = |&micros: &u64| {
            let seconds = fraction(micros, 1_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            seconds.to_string()
        };
        let bounds = BUCKETS.iter().map(bound).chain(["+Inf".to_string()]);
        let bucket = |(bound, bucket): (String, &AtomicU64)| {
            probes += bucket.load(Relaxed);
            (format!("_bucket{{le=\"{bound}\"}}"), probes.to_string())
        };
        let mut samples: Vec<_> = bounds.zip(&self.buckets).map(bucket).collect();
        let seconds = fraction(self.microseconds.load(Relaxed), 1_000_000);
        samples.push(("_sum".to_string(), seconds));
        samples.push(("_count".to_string(), probes.to_string()));
        samples
    }
}

/// `parts` of a whole of `of` parts, as a decimal number.
fn fraction(parts: u64, of: u64) -> String {
    let digits = of.ilog10() as usize;
    format!("{}.{:0digits$}", parts / of, parts % of)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays cycles: a probe's microseconds, its result, the port, and whether the
    /// lease expired.
    fn play(cycles: &[(u64, ProbeResult, State, bool)]) -> Metrics {
        let metrics = Metrics::new(&Ports::new(&[], Duration::MAX));
        for (now, (micros, result, port, expired)) in (1_001..).zip(cycles) {
            let status = (*result == ProbeResult::Ok).then_some(200);
            let outcome = Outcome {
                result: *result,
                status,
                sentence: String::new(),
            };
            let cycle = Cycle {
                now: Duration::ZERO,
                took: Some(Duration::from_micros(*micros)),
                outcome: Some(&outcome),
                up: false,
                progress: (0, 1),
                drained: status.is_none().then_some("drained"),
                expired: *expired,
                ports: std::slice::from_ref(port),
            };
            metrics.counters.count(&cycle, now);
        }
        metrics
    }

    /// Every sample except the version, the start time and any bucket that equals the
    /// one before.
    fn samples(metrics: &Metrics) -> String {
        let text = metrics.text();
        let mut lines: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_info"))
            .filter_map(|line| line.strip_prefix("healthport_"))
            .collect();
        lines.dedup_by_key(|line| match line.split_once('}') {
            Some((name, value)) if name.contains("_bucket") => value,
            _ => *line,
        });
        lines.join("\n")
    }

    #[test]
    fn what_cycles_add_up_to() {
        use ProbeResult::{Connect, Ok, Timeout};
        use State::{Closed, Open};
        let refused = State::Failed("in use".to_string());
        let mut metrics = play(&[
            (500, Ok, refused, false),
            (501, Ok, Open, false),
            (1_000, Ok, Open, true),
            (3_000_001, Timeout, Closed, false),
            (20_000_001, Connect, Closed, false),
        ]);
        let expected = "\
up 0
probe_success 0
probe_http_status_code 0
probe_duration_seconds_bucket{le=\"0.0005\"} 1
probe_duration_seconds_bucket{le=\"0.001\"} 3
probe_duration_seconds_bucket{le=\"5\"} 4
probe_duration_seconds_bucket{le=\"+Inf\"} 5
probe_duration_seconds_sum 23.002003
probe_duration_seconds_count 5
probes_total{result=\"ok\"} 3
probes_total{result=\"status\"} 0
probes_total{result=\"connect\"} 1
probes_total{result=\"timeout\"} 1
probes_total{result=\"protocol\"} 0
probes_total{result=\"body\"} 0
transitions_total{to=\"open\"} 2
transitions_total{to=\"closed\"} 2
last_transition_timestamp_seconds 1.004
last_success_timestamp_seconds 1.003
connections_total 0
last_connection_timestamp_seconds 0.000
listen_errors_total 1
lease_expirations_total 1
drained 1";
        assert_eq!(samples(&metrics), expected);

        metrics = play(&[(1, Ok, Open, false)]);
        metrics.connections.add();
        let samples = samples(&metrics);
        assert!(samples.starts_with("up 1\nprobe_success 1\nprobe_http_status_code 200\n"));
        assert!(samples.contains("\nconnections_total 1\n"));
        assert!(!samples.contains("last_connection_timestamp_seconds 0.000"));
        assert!(samples.ends_with("\ndrained 0"));
    }
}
