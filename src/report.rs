//! What the log and `systemctl status` say. Silent until something changes: one
//! line at the start, one for the first result, one for every change of the
//! port, one for a new reason while it is closed. Pure: facts in, lines out.

use std::time::Duration;

use log::Level;

use crate::config::Config;
use crate::cycle::Cycle;
use crate::ports::State;

/// A line for the log.
type Line = (Level, String);

/// Remembers what was reported.
#[derive(Debug)]
pub struct Reporter<'a> {
    config: &'a Config,
    ports: Vec<State>,
    /// The reason for the closed port that was logged last.
    reason: String,
    state: String,
    since: Duration,
    probes: u64,
}

impl Reporter<'_> {
    /// Nothing is open yet.
    pub fn new(config: &Config) -> Reporter<'_> {
        Reporter {
            config,
            ports: vec![State::Closed; config.listen.len()],
            reason: String::new(),
            state: String::new(),
            since: Duration::ZERO,
            probes: 0,
        }
    }

    /// The line logged at the start.
    pub fn start(&self) -> String {
        let config = self.config;
        format!(
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
            config.max_age(),
        )
    }

    /// The lines for ports that failed, or failed for a new reason.
    pub fn refused(&mut self, ports: &[State]) -> Vec<Line> {
        let before = std::mem::replace(&mut self.ports, ports.to_vec());
        let changed = before
            .iter()
            .zip(ports)
            .filter(|(before, now)| before != now);
        let interval = self.config.interval;
        let line = |sentence| format!("port closed: {sentence}; next try in {interval:?}");
        changed
            .filter_map(|(_, now)| failure(now))
            .map(|sentence| (Level::Error, line(sentence)))
            .collect()
    }

    /// The lines for one cycle; none if nothing changed.
    pub fn cycle(&mut self, cycle: &Cycle) -> Vec<Line> {
        let mut lines = Vec::from_iter(self.expired(cycle));
        let before = self.ports.clone();
        lines.extend(self.refused(cycle.ports));
        let change = self.change(cycle, &before);
        let reason = self.new_reason(cycle);
        lines.extend(change.or(reason));
        self.state = self.describe(cycle);
        self.probes += 1;
        lines
    }

    /// The line for an expired lease, which has closed every port since the last cycle.
    fn expired(&mut self, cycle: &Cycle) -> Option<Line> {
        if !cycle.lapsed {
            return None;
        }
        self.ports.fill(State::Closed);
        self.since = cycle.now;
        let (max_age, rise) = (self.config.max_age(), self.config.rise);
        Some((
            Level::Error,
            format!(
                "port closed: no probe ended for --max-age {max_age:?}, the loop stalled; it opens after {rise} good probes in a row"
            ),
        ))
    }

    /// The line for ports that opened or closed.
    fn change(&mut self, cycle: &Cycle, before: &[State]) -> Option<Line> {
        let addresses = |changed| self.addresses(before, cycle.ports, changed);
        let opened = addresses(|before, now| *before != State::Open && *now == State::Open);
        // A port that failed has its line from `refused`.
        let closed = addresses(|before, now| *before == State::Open && *now == State::Closed);
        let reason = cycle.reason();
        let time = human_time(cycle.now.saturating_sub(self.since));
        if before.contains(&State::Open) != cycle.ports.contains(&State::Open) {
            self.since = cycle.now;
        }
        let line = match (opened.as_str(), closed.as_str()) {
            ("", "") => return None,
            ("", closed) => format!("port closed on {closed}: {reason} (open for {time})"),
            (opened, _) => {
                self.reason.clear();
                format!("port open on {opened}: {reason} (closed for {time})")
            }
        };
        Some((Level::Info, line))
    }

    /// The line for a port that the service or the drain file keeps closed, if the
    /// reason is not the one that was logged last.
    fn new_reason(&mut self, cycle: &Cycle) -> Option<Line> {
        let reason = cycle.reason();
        if !cycle.is_refused() || self.reason == reason {
            return None;
        }
        self.reason.clone_from(&reason);
        let still = if self.probes == 0 { "" } else { "still " };
        Some((Level::Info, format!("port {still}closed: {reason}")))
    }

    fn describe(&self, cycle: &Cycle) -> String {
        let failed: Vec<_> = cycle.ports.iter().filter_map(failure).collect();
        let open = self.addresses(cycle.ports, cycle.ports, |_, now| *now == State::Open);
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
    fn addresses(
        &self,
        before: &[State],
        now: &[State],
        is_wanted: fn(&State, &State) -> bool,
    ) -> String {
        let ports = before.iter().zip(now).zip(&self.config.listen);
        let wanted = ports.filter(|((before, now), _)| is_wanted(before, now));
        let list: Vec<_> = wanted.map(|(_, address)| address.to_string()).collect();
        list.join(", ")
    }

    /// The state in words, for STATUS=.
    pub fn status(&self) -> &str {
        &self.state
    }

    /// The state with its times and probes, for SIGUSR1 and the last line.
    pub fn account(&self, now: Duration) -> String {
        let (state, probes) = (&self.state, self.probes);
        let time = human_time(now.saturating_sub(self.since));
        let all = human_time(now);
        format!("{state} (for {time}; {probes} probes in {all})")
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
        let (mut up, mut drained, mut lapsed) = (false, None, false);
        let (mut progress, mut ports) = ((0, 2), Vec::new());
        for word in facts.split(' ') {
            match word {
                "up" => up = true,
                "drained" => drained = Some("drained"),
                "lapsed" => lapsed = true,
                "half" => progress = (1, 2),
                "good" => (outcome.result, outcome.sentence) = (ProbeResult::Ok, "good".into()),
                "bad" | "gone" => outcome.sentence = word.to_string(),
                states => {
                    ports.extend(states.chars().map(|state| match state {
                        'O' => State::Open,
                        'C' => State::Closed,
                        failed => State::Failed(format!("cannot {failed}")),
                    }));
                }
            }
        }
        let lines = reporter.cycle(&Cycle {
            now,
            took: Duration::ZERO,
            outcome: &outcome,
            up,
            progress,
            drained,
            lapsed,
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
            assert_eq!(reporter.status(), *state, "state at {now}");
        }
    }

    #[test]
    fn each_change_is_one_line_and_steady_is_silent() {
        plays(&[
            (1, "bad CC", "port closed: bad", "port closed: bad"),
            (2, "bad CC", "", "port closed: bad"),
            (3, "gone CC", "port still closed: gone", "port closed: gone"),
            (4, "good half CC", "", "port closed: good, 1 of 2 in a row"),
            // Not logged: it is the reason that was logged last.
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
    fn a_lease_that_ran_out_is_said_before_what_came_next() {
        let expired = "! port closed: no probe ended for --max-age 8s, the loop stalled; it opens after 2 good probes in a row";
        let open = "port open on 127.0.0.1:1, [::1]:2: good (closed for ";
        plays(&[
            (1, "up good OO", &format!("{open}1.0s)"), "port open: good"),
            (
                9,
                "lapsed good half CC",
                expired,
                "port closed: good, 1 of 2 in a row",
            ),
            (10, "up good OO", &format!("{open}1.0s)"), "port open: good"),
            (
                20,
                "lapsed up good OO",
                &format!("{expired}\n{open}0.0s)"),
                "port open: good",
            ),
        ]);
    }

    #[test]
    fn the_account_has_times_and_probes() {
        let config = config();
        let mut reporter = Reporter::new(&config);
        let account = |reporter: &Reporter, now| reporter.account(Duration::from_millis(now));
        cycle(&mut reporter, Duration::from_secs(60), "up good OO");
        cycle(&mut reporter, Duration::from_secs(61), "up good OO");
        assert_eq!(
            account(&reporter, 61_999),
            "port open: good (for 1.9s; 2 probes in 1m 1s)"
        );
        let long = 60_000 + 25 * 3_600_000;
        assert_eq!(
            account(&reporter, long),
            "port open: good (for 1d 1h; 2 probes in 1d 1h)"
        );
        let long = 62_000 + 61 * 60_000;
        assert_eq!(
            account(&reporter, long),
            "port open: good (for 1h 1m; 2 probes in 1h 2m)"
        );
    }

    #[test]
    fn the_start_says_settings_and_worst_cases() {
        let expected = concat!(
            "healthport ",
            env!("CARGO_PKG_VERSION"),
            " probes http://localhost:1936/healthz/ready every 1s, fast 100ms, timeout 3s, rise 2, fall 2; \
             port 127.0.0.1:1, [::1]:2 closes within 1.1s of a bad answer, 7s of a hang, \
             opens within 1.1s of a good answer; max-age 8s"
        );
        assert_eq!(Reporter::new(&config()).start(), expected);
    }
}
