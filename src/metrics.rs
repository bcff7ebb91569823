//! The counters and their Prometheus text. The loop only stores numbers here and
//! takes no lock, so that no reader can delay it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::gate::{Gate, Port, Visits, unix_millis};
use crate::lease::Lease;
use crate::probe::Code;
use crate::report::Cycle;

/// Upper bounds of the histogram, in microseconds and as they are shown, in
/// seconds: a local answer takes a millisecond, that of a large router which
/// writes its configuration up to 1.9 s, that of one with a stuck HAProxy 2.0 s
/// and something, and the default timeout is 3 s.
const BUCKETS: [(u128, &str); 13] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_000_000, "2"),
    (3_000_000, "3"),
    (5_000_000, "5"),
];

/// What is counted. Times are milliseconds since 1970, 0 = never.
#[derive(Debug)]
pub struct Metrics {
    lease: Arc<Lease>,
    visits: Arc<Visits>,
    started: u64,
    open: AtomicBool,
    success: AtomicBool,
    drained: AtomicBool,
    status: AtomicU64,
    results: [AtomicU64; Code::ALL.len()],
    buckets: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    listen_errors: AtomicU64,
    lease_expirations: AtomicU64,
    last_transition: AtomicU64,
    last_success: AtomicU64,
}

impl Metrics {
    /// All zero, for this gate.
    pub fn new(gate: &Gate) -> Metrics {
        Metrics {
            lease: gate.lease(),
            visits: gate.visits(),
            started: unix_millis(),
            open: AtomicBool::default(),
            success: AtomicBool::default(),
            drained: AtomicBool::default(),
            status: AtomicU64::default(),
            results: Default::default(),
            buckets: Default::default(),
            microseconds: AtomicU64::default(),
            opened: AtomicU64::default(),
            closed: AtomicU64::default(),
            listen_errors: AtomicU64::default(),
            lease_expirations: AtomicU64::default(),
            last_transition: AtomicU64::default(),
            last_success: AtomicU64::default(),
        }
    }

    /// Counts one cycle of the loop; `now` is [`unix_millis`].
    pub fn count(&self, cycle: &Cycle, now: u64) {
        let outcome = cycle.outcome;
        let micros = cycle.took.as_micros();
        let bucket = BUCKETS
            .iter()
            .position(|&(bound, _)| micros <= bound)
            .unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        let microseconds = u64::try_from(micros).unwrap_or(0);
        self.microseconds.fetch_add(microseconds, Relaxed);
        self.results[outcome.code as usize].fetch_add(1, Relaxed);
        self.status
            .store(outcome.status.unwrap_or(0).into(), Relaxed);
        self.success.store(outcome.is_good(), Relaxed);
        self.drained.store(cycle.drained.is_some(), Relaxed);
        if outcome.is_good() {
            self.last_success.store(now, Relaxed);
        }

        let failed = cycle
            .ports
            .iter()
            .filter(|port| matches!(port, Port::Failed(_)))
            .count();
        self.listen_errors.fetch_add(failed as u64, Relaxed);
        self.lease_expirations
            .fetch_add(cycle.lapsed.into(), Relaxed);
        // The lease has closed it before this cycle may have opened it again.
        if cycle.lapsed {
            self.port(false, now);
        }
        self.port(cycle.ports.contains(&Port::Open), now);
    }

    fn port(&self, open: bool, now: u64) {
        if self.open.swap(open, Relaxed) != open {
            let transitions = if open { &self.opened } else { &self.closed };
            transitions.fetch_add(1, Relaxed);
            self.last_transition.store(now, Relaxed);
        }
    }

    /// Whether the loop makes progress.
    pub fn is_live(&self) -> bool {
        self.lease.is_running()
    }

    /// The Prometheus text exposition format, version 0.0.4.
    pub fn text(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let flag = |flag: &AtomicBool| u8::from(flag.load(Relaxed));
        let seconds = |millis| fraction(millis, 1_000);
        let time = |time: &AtomicU64| seconds(time.load(Relaxed));

        // The count is made from the buckets, so that they agree in every scrape.
        let mut probes = 0;
        let mut buckets = String::new();
        let bounds = BUCKETS.iter().map(|(_, seconds)| *seconds).chain(["+Inf"]);
        for (bound, bucket) in bounds.zip(&self.buckets) {
            probes += count(bucket);
            buckets +=
                &format!("healthport_probe_duration_seconds_bucket{{le=\"{bound}\"}} {probes}\n");
        }
        let mut results = String::new();
        for (code, result) in Code::ALL.iter().zip(&self.results) {
            results += &format!(
                "healthport_probes_total{{result=\"{code}\"}} {}\n",
                count(result)
            );
        }

        format!(
            "\
# HELP healthport_up 1 while the port is open.
# TYPE healthport_up gauge
healthport_up {up}
# HELP healthport_probe_success 1 if the last probe was good, before rise and fall.
# TYPE healthport_probe_success gauge
healthport_probe_success {success}
# HELP healthport_probe_http_status_code Status of the last probe, 0 = no answer.
# TYPE healthport_probe_http_status_code gauge
healthport_probe_http_status_code {status}
# HELP healthport_probe_duration_seconds How long probes took.
# TYPE healthport_probe_duration_seconds histogram
{buckets}\
healthport_probe_duration_seconds_sum {seconds}
healthport_probe_duration_seconds_count {probes}
# HELP healthport_probes_total Probes by result.
# TYPE healthport_probes_total counter
{results}\
# HELP healthport_transitions_total Changes of the port.
# TYPE healthport_transitions_total counter
healthport_transitions_total{{to=\"open\"}} {opened}
healthport_transitions_total{{to=\"closed\"}} {closed}
# HELP healthport_last_transition_timestamp_seconds When the port last changed, 0 = never.
# TYPE healthport_last_transition_timestamp_seconds gauge
healthport_last_transition_timestamp_seconds {last_transition}
# HELP healthport_last_success_timestamp_seconds When a probe was last good, 0 = never.
# TYPE healthport_last_success_timestamp_seconds gauge
healthport_last_success_timestamp_seconds {last_success}
# HELP healthport_connections_total Accepted checks: is the switch really looking?
# TYPE healthport_connections_total counter
healthport_connections_total {connections}
# HELP healthport_last_connection_timestamp_seconds When a check was last accepted, 0 = never.
# TYPE healthport_last_connection_timestamp_seconds gauge
healthport_last_connection_timestamp_seconds {last_connection}
# HELP healthport_listen_errors_total Attempts to reserve or open an address that the system refused.
# TYPE healthport_listen_errors_total counter
healthport_listen_errors_total {listen_errors}
# HELP healthport_lease_expirations_total How often an open port closed itself, the loop standing still.
# TYPE healthport_lease_expirations_total counter
healthport_lease_expirations_total {lease_expirations}
# HELP healthport_drained 1 while the drain file keeps the port closed.
# TYPE healthport_drained gauge
healthport_drained {drained}
# HELP healthport_build_info Always 1.
# TYPE healthport_build_info gauge
healthport_build_info{{version=\"{version}\"}} 1
# HELP process_start_time_seconds When the process started.
# TYPE process_start_time_seconds gauge
process_start_time_seconds {started}
",
            // The helper closes the port of a loop that stands still: the loop's
            // own word is not enough.
            up = u8::from(self.open.load(Relaxed) && self.is_live()),
            success = flag(&self.success),
            status = count(&self.status),
            seconds = fraction(count(&self.microseconds), 1_000_000),
            opened = count(&self.opened),
            closed = count(&self.closed),
            last_transition = time(&self.last_transition),
            last_success = time(&self.last_success),
            connections = count(&self.visits.count),
            last_connection = time(&self.visits.last),
            listen_errors = count(&self.listen_errors),
            lease_expirations = count(&self.lease_expirations),
            drained = flag(&self.drained),
            version = env!("CARGO_PKG_VERSION"),
            started = seconds(self.started),
        )
    }
}

/// A count of `parts` of a whole as a decimal number.
fn fraction(parts: u64, of: u64) -> String {
    let digits = of.ilog10() as usize;
    format!("{}.{:0digits$}", parts / of, parts % of)
}
