//! What the log and `systemctl status` say. Silent until something changes: one
//! line at the start, one for the first result, one for every change of the
//! port, one for a new reason while it is closed. Pure: facts in, lines out.

use std::time::Duration;

use log::Level;

use crate::config::Config;
use crate::cycle::Cycle;
use crate::ports::State;

/// How many reasons are logged while the port is closed. An outage has a handful of them
/// (refused, reset, late, 502, 503), but a service could invent a new one for every probe.
const REASONS: usize = 8;

type Line = (Level, String);

#[derive(Debug)]
pub struct Reporter<'a> {
    config: &'a Config,
    ports: Vec<State>,
    /// The reasons that were logged since the port closed.
    reasons: Vec<String>,
    /// The state in words, for STATUS=.
    pub status: String,
    since: Duration,
    probes: u64,
    bad: u64,
}

impl Reporter<'_> {
    pub fn new(config: &Config) -> Reporter<'_> {
        Reporter {
            config,
            ports: vec![State::Closed; config.listen.len()],
            reasons: Vec::new(),
            status: String::new(),
            since: Duration::ZERO,
            probes: 0,
            bad: 0,
        }
    }

    /// The lines for the start, once the ports are reserved, or failed.
    pub fn start(&mut self, ports: &[State]) -> Vec<Line> {
        let config = self.config;
        let settings = format!(
            "healthport {} probes {} every {:?}, fast {:?}, timeout {:?}, rise {}, fall {}; port {} closes within {:?} \
             of a bad answer, {:?} of a hang, opens within {:?} of a good answer; max-age {:?}",
            env!("CARGO_PKG_VERSION"),
            config.url,
            config.interval,
            config.fast_interval(),
            config.timeout,
            config.rise,
            config.fall,
            config.ports(),
            config.closes_after_bad(Duration::ZERO),
            config.closes_after_hang(Duration::ZERO),
            config.opens_after(Duration::ZERO),
            config.max_age,
        );
        let mut lines = vec![(Level::Info, settings)];
        lines.extend(self.failures(ports));
        self.ports = ports.to_vec();
        lines
    }

    /// The lines for one cycle; none if nothing changed.
    pub fn lines(&mut self, cycle: &Cycle) -> Vec<Line> {
        let mut lines = Vec::new();
        if cycle.expired {
            // The expired lease has closed every port since the last cycle.
            lines.push(self.expired());
            self.ports.fill(State::Closed);
            self.since = cycle.now;
        }
        lines.extend(self.failures(cycle.ports));
        let opened = self.addresses(cycle.ports, |before, now| {
            *before != State::Open && *now == State::Open
        });
        // A port that failed has its line already.
        let closed = self.addresses(cycle.ports, |before, now| {
            *before == State::Open && *now == State::Closed
        });
        let time = human_time(cycle.now.saturating_sub(self.since));
        let reason = cycle.reason();
        let is_new =
            cycle.keeps_closed() && self.reasons.len() < REASONS && !self.reasons.contains(&reason);
        let line = match (opened.as_str(), closed.as_str()) {
            ("", "") if !is_new => None,
            ("", "") => Some(self.still_closed(&reason)),
            ("", closed) => Some(format!(
                "port closed on {closed}: {reason} (open for {time})"
            )),
            (opened, _) => Some(format!(
                "port open on {opened}: {reason} (closed for {time})"
            )),
        };
        lines.extend(line.map(|line| (Level::Info, line)));

        if !opened.is_empty() {
            self.reasons.clear();
        } else if is_new {
            self.reasons.push(reason);
        }
        if self.ports.contains(&State::Open) != cycle.ports.contains(&State::Open) {
            self.since = cycle.now;
        }
        self.ports = cycle.ports.to_vec();
        self.status = self.status_of(cycle);
        if let (Some(_), Some(outcome)) = (cycle.took, cycle.outcome) {
            self.probes += 1;
            self.bad += u64::from(!outcome.is_good());
        }
        lines
    }

    fn expired(&self) -> Line {
        let (max_age, rise) = (self.config.max_age, self.config.rise);
        let line = format!(
            "port closed: the loop stood still for longer than --max-age {max_age:?}; it opens after {rise} good probes in a row"
        );
        (Level::Error, line)
    }

    /// The lines for ports that failed, or failed for another reason than before.
    fn failures(&self, ports: &[State]) -> Vec<Line> {
        let interval = self.config.interval;
        let line = |sentence| format!("port closed: {sentence}; next try in {interval:?}");
        let pairs = self.ports.iter().zip(ports);
        pairs
            .filter(|(before, now)| before != now)
            .filter_map(|(_, now)| failure(now))
            .map(|sentence| (Level::Error, line(sentence)))
            .collect()
    }

    /// The line for a reason that was not logged since the port closed.
    fn still_closed(&self, reason: &str) -> String {
        let still = if self.probes == 0 { "" } else { "still " };
        let last = if self.reasons.len() + 1 == REASONS {
            "; no further reason is logged until it opens"
        } else {
            ""
        };
        format!("port {still}closed: {reason}{last}")
    }

    fn status_of(&self, cycle: &Cycle) -> String {
        let failed: Vec<_> = cycle.ports.iter().filter_map(failure).collect();
        let open = self.addresses(cycle.ports, |_, now| *now == State::Open);
        let reason = cycle.reason();
        match (open.as_str(), failed.join("; ").as_str()) {
            ("", "") => format!("port closed: {reason}"),
            ("", failed) => format!("port closed: {failed}"),
            (_, "") => format!("port open: {reason}"),
            // Not worded like a change of the port, since SIGUSR1 logs this too.
            (open, failed) => format!("port open, but only on {open}: {failed}"),
        }
    }

    /// The addresses for which `is_wanted` holds, given their states before and now.
    fn addresses(&self, now: &[State], is_wanted: fn(&State, &State) -> bool) -> String {
        let ports = self.ports.iter().zip(now).zip(&self.config.listen);
        let wanted = ports.filter(|((before, now), _)| is_wanted(before, now));
        let list: Vec<_> = wanted.map(|(_, address)| address.to_string()).collect();
        list.join(", ")
    }

    /// The status with its times and counts, for SIGUSR1 and the last line. `checks` is
    /// how many connections were accepted, `last` how long ago the last one was.
    pub fn status_with_counts(&self, now: Duration, checks: u64, last: Option<Duration>) -> String {
        let (status, probes, bad) = (&self.status, self.probes, self.bad);
        let time = human_time(now.saturating_sub(self.since));
        let all = human_time(now);
        let checks = match last {
            Some(last) => format!("last check {} ago, {checks} checks", human_time(last)),
            None => "no check yet".to_string(),
        };
        format!("{status} (for {time}; {probes} probes, {bad} bad, in {all}; {checks})")
    }
}

fn failure(port: &State) -> Option<&str> {
    match port {
        State::Failed(sentence) => Some(sentence),
        _ => None,
    }
}

/// A duration, written for people.
fn human_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}.{}s", time.subsec_millis() / 100),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::probe::{Outcome, ProbeResult};

    fn config() -> Config {
        Config {
            listen: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            rise: 2,
            ..Config::default()
        }
    }

    /// Plays one cycle. Its facts are words; the last word is the two ports: `O` open,
    /// `C` closed, `A` and `B` failed. Returns what is logged, errors with a `!`.
    fn cycle(reporter: &mut Reporter, now: Duration, facts: &str) -> String {
        let mut outcome = Outcome {
            result: ProbeResult::Status,
            status: None,
            sentence: String::new(),
        };
        let (mut up, mut drained, mut expired) = (false, None, false);
        let (mut progress, mut ports) = ((0, 2), Vec::new());
        for word in facts.split(' ') {
            match word {
                "up" => up = true,
                "drained" => drained = Some("drained"),
                "expired" => expired = true,
                "half" => progress = (1, 2),
                "good" => (outcome.result, outcome.sentence) = (ProbeResult::Ok, "good".into()),
                states if states.bytes().all(|state| b"OCAB".contains(&state)) => {
                    ports.extend(states.chars().map(|state| match state {
                        'O' => State::Open,
                        'C' => State::Closed,
                        failed => State::Failed(format!("cannot {failed}")),
                    }));
                }
                bad => outcome.sentence = bad.to_string(),
            }
        }
        let lines = reporter.lines(&Cycle {
            now,
            took: Some(Duration::ZERO),
            outcome: Some(&outcome),
            up,
            progress,
            drained,
            expired,
            ports: &ports,
        });
        let lines = lines.into_iter().map(|(level, line)| match level {
            Level::Error => format!("! {line}"),
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Each entry is a second, facts, the lines, and the state after them.
    fn plays(story: &[(u64, &str, &str, &str)]) {
        let config = config();
        let mut reporter = Reporter::new(&config);
        for (now, facts, lines, state) in story {
            let logged = cycle(&mut reporter, Duration::from_secs(*now), facts);
            assert_eq!(logged, *lines, "lines at {now}");
            assert_eq!(reporter.status, *state, "state at {now}");
        }
    }

    #[test]
    fn each_change_is_one_line_and_steady_is_silent() {
        plays(&[
            (1, "bad CC", "port closed: bad", "port closed: bad"),
            (2, "bad CC", "", "port closed: bad"),
            (3, "gone CC", "port still closed: gone", "port closed: gone"),
            (4, "good half CC", "", "port closed: good, 1 of 2 in a row"),
            // Both were logged since the port closed.
            (5, "gone CC", "", "port closed: gone"),
            (5, "bad CC", "", "port closed: bad"),
            (5, "gone CC", "", "port closed: gone"),
            (
                6,
                "up good OO",
                "port open on 127.0.0.1:1, [::1]:2: good (closed for 6.0s)",
                "port open: good",
            ),
            (7, "up good OO", "", "port open: good"),
            (8, "up bad half OO", "", "port open: bad, 1 of 2 in a row"),
            (
                66,
                "gone CC",
                "port closed on 127.0.0.1:1, [::1]:2: gone (open for 1m 0s)",
                "port closed: gone",
            ),
            (67, "gone CC", "", "port closed: gone"),
            (
                68,
                "up good OO",
                "port open on 127.0.0.1:1, [::1]:2: good (closed for 2.0s)",
                "port open: good",
            ),
            (
                69,
                "up good drained CC",
                "port closed on 127.0.0.1:1, [::1]:2: drained (open for 1.0s)",
                "port closed: drained",
            ),
            (70, "gone drained CC", "", "port closed: drained"),
            (
                71,
                "gone CC",
                "port still closed: gone",
                "port closed: gone",
            ),
        ]);
    }

    #[test]
    fn a_first_answer_that_is_good_opens_with_one_line() {
        let open = "port open on 127.0.0.1:1, [::1]:2: good (closed for 0.0s)";
        plays(&[(0, "up good OO", open, "port open: good")]);
    }

    #[test]
    fn a_port_that_the_system_refuses_is_named() {
        let only = "port open, but only on 127.0.0.1:1: cannot A";
        plays(&[
            (
                1,
                "bad CA",
                "! port closed: cannot A; next try in 1s\nport closed: bad",
                "port closed: cannot A",
            ),
            (
                2,
                "up good AB",
                "! port closed: cannot A; next try in 1s\n! port closed: cannot B; next try in 1s",
                "port closed: cannot A; cannot B",
            ),
            (
                3,
                "up good OA",
                "! port closed: cannot A; next try in 1s\nport open on 127.0.0.1:1: good (closed for 3.0s)",
                only,
            ),
            (4, "up good OA", "", only),
            (
                5,
                "up good OO",
                "port open on [::1]:2: good (closed for 2.0s)",
                "port open: good",
            ),
            (
                6,
                "up good OA",
                "! port closed: cannot A; next try in 1s",
                only,
            ),
            (
                7,
                "bad CC",
                "port closed on 127.0.0.1:1: bad (open for 4.0s)",
                "port closed: bad",
            ),
        ]);
    }

    #[test]
    fn an_expired_lease_is_logged_before_what_came_next() {
        let expired = "! port closed: the loop stood still for longer than --max-age 4s; it opens after 2 good probes in a row";
        let open = "port open on 127.0.0.1:1, [::1]:2: good (closed for ";
        plays(&[
            (1, "up good OO", &format!("{open}1.0s)"), "port open: good"),
            (
                9,
                "expired good half CC",
                expired,
                "port closed: good, 1 of 2 in a row",
            ),
            (10, "up good OO", &format!("{open}1.0s)"), "port open: good"),
            (
                20,
                "expired up good OO",
                &format!("{expired}\n{open}0.0s)"),
                "port open: good",
            ),
        ]);
    }

    #[test]
    fn a_service_that_invents_reasons_is_bounded() {
        let config = config();
        let mut reporter = Reporter::new(&config);
        let mut play = |facts: &str| cycle(&mut reporter, Duration::ZERO, facts);
        let invented = |play: &mut dyn FnMut(&str) -> String| -> Vec<String> {
            let lines = (0..1_000).map(|number| play(&format!("invented-{number} CC")));
            lines.filter(|line| !line.is_empty()).collect()
        };
        // The second time, one reason comes with the line that the port closed.
        for logged in [REASONS, REASONS - 1] {
            let lines = invented(&mut play);
            assert_eq!(lines.len(), logged, "{lines:#?}");
            assert!(lines[logged - 1].ends_with("; no further reason is logged until it opens"));
            assert!(play("up good OO").starts_with("port open on "));
            assert!(play("bad CC").starts_with("port closed on "));
        }
    }

    #[test]
    fn status_has_times_and_counts() {
        let config = config();
        let mut reporter = Reporter::new(&config);
        cycle(&mut reporter, Duration::from_secs(59), "bad CC");
        cycle(&mut reporter, Duration::from_secs(60), "up good OO");
        cycle(&mut reporter, Duration::from_secs(61), "up good OO");
        for (now, checks, last, expected) in [
            (
                61_999,
                0,
                None,
                "(for 1.9s; 3 probes, 1 bad, in 1m 1s; no check yet)",
            ),
            (
                60_000 + 25 * 3_600_000,
                812,
                Some(1_400),
                "(for 1d 1h; 3 probes, 1 bad, in 1d 1h; last check 1.4s ago, 812 checks)",
            ),
            (
                62_000 + 61 * 60_000,
                1,
                Some(0),
                "(for 1h 1m; 3 probes, 1 bad, in 1h 2m; last check 0.0s ago, 1 checks)",
            ),
        ] {
            let now = Duration::from_millis(now);
            let status_with_counts =
                reporter.status_with_counts(now, checks, last.map(Duration::from_millis));
            assert_eq!(status_with_counts, format!("port open: good {expected}"));
        }
    }

    #[test]
    fn the_start_says_settings_and_worst_cases() {
        let expected = concat!(
            "healthport ",
            env!("CARGO_PKG_VERSION"),
            " probes http://localhost:1936/healthz/ready every 1s, fast 100ms, timeout 10s, rise 2, fall 2; \
             port 127.0.0.1:1, [::1]:2 closes within 1.1s of a bad answer, 21s of a hang, \
             opens within 1.1s of a good answer; max-age 4s"
        );
        let config = config();
        let failed = State::Failed("cannot A".to_string());
        let lines = Reporter::new(&config).start(&[State::Closed, failed]);
        let [settings, (Level::Error, failure)] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(*settings, (Level::Info, expected.to_string()));
        assert_eq!(failure, "port closed: cannot A; next try in 1s");
    }
}
