//! Turns the outcomes of probes into up or down. Pure: no I/O, no clock, no thread, so
//! that a test is a string of `+` and `-`.

/// Damping by consecutive results, as in HAProxy (`src/check.c`): one counter in
/// `0..rise+fall-1`, up when it is at least `rise`.
#[derive(Debug, Clone)]
pub struct Health {
    rise: u32,
    fall: u32,
    counter: u32,
}

impl Health {
    /// Starts down: a service that was never probed is not ready. `rise` and `fall` are
    /// counts of probes, at least 1.
    pub fn new(rise: u32, fall: u32) -> Health {
        Health {
            rise,
            fall,
            counter: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        self.counter >= self.rise
    }

    /// Takes one probe's result and returns whether the service is up now.
    pub fn observe(&mut self, good: bool) -> bool {
        let top = self.rise + self.fall - 1;
        self.counter = match (good, self.is_up()) {
            (true, true) => top,
            (true, false) if self.counter + 1 == self.rise => top,
            (true, false) => self.counter + 1,
            (false, true) if self.counter == self.rise => 0,
            (false, true) => self.counter - 1,
            (false, false) => 0,
        };
        self.is_up()
    }

    /// Forgets everything: `rise` must be earned again.
    pub fn reset(&mut self) {
        self.counter = 0;
    }

    /// Progress towards the other state: how many consecutive results contradict the
    /// current one, and how many change it.
    pub fn progress(&self) -> (u32, u32) {
        if self.is_up() {
            (self.rise + self.fall - 1 - self.counter, self.fall)
        } else {
            (self.counter, self.rise)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    /// Plays a string of probes and returns one letter for each: `O` opens, `C` closes,
    /// `.` changes nothing.
    fn play(rise: u32, fall: u32, probes: &str) -> String {
        let mut health = Health::new(rise, fall);
        let mut up = false;
        let letter = |good| match (up, health.observe(good)) {
            (false, true) => {
                up = true;
                'O'
            }
            (true, false) => {
                up = false;
                'C'
            }
            _ => '.',
        };
        probes
            .chars()
            .map(|probe| probe == '+')
            .map(letter)
            .collect()
    }

    #[test]
    fn transparent_by_default() {
        assert_eq!(play(1, 1, "-+-++--+"), ".OCO.C.O");
    }

    #[test]
    fn consecutive_results_only() {
        assert_eq!(play(2, 3, "++--+--+---"), ".O........C");
        assert_eq!(play(3, 1, "++-+++-"), ".....OC");
        assert_eq!(play(1, 3, "+--+-----+"), "O.....C..O");
        assert_eq!(play(3, 2, "--++-+++-+--+"), ".......O...C.");
    }

    #[test]
    fn reset_must_earn_rise_again() {
        let mut health = Health::new(2, 5);
        health.observe(true);
        assert!(health.observe(true));
        health.reset();
        assert!(!health.is_up());
        assert!(!health.observe(true));
        assert!(health.observe(true));
    }

    #[test]
    fn progress_counts_what_speaks_for_a_change() {
        let mut health = Health::new(2, 3);
        let mut after = |good| {
            health.observe(good);
            health.progress()
        };
        assert_eq!(after(true), (1, 2));
        assert_eq!(after(true), (0, 3));
        assert_eq!(after(false), (1, 3));
        assert_eq!(after(false), (2, 3));
        assert_eq!(after(false), (0, 2));
    }

    /// Compares all sequences of up to 12 probes with the plain definition: the service
    /// is in the state that the last run of `rise` good or `fall` bad results put it
    /// in.
    #[test]
    fn equals_the_run_length_model() {
        for (rise, fall) in (1..=3).flat_map(|rise| (1..=3).map(move |fall| (rise, fall))) {
            for bits in 0..1u32 << 12 {
                let mut health = Health::new(rise, fall);
                let (mut up, mut run, mut last) = (false, 0, false);
                for position in 0..12 {
                    let good = (bits >> position) & 1 == 1;
                    run = if good == last { run + 1 } else { 1 };
                    last = good;
                    if good && run >= rise {
                        up = true;
                    } else if !good && run >= fall {
                        up = false;
                    }
                    assert_eq!(
                        health.observe(good),
                        up,
                        "rise {rise}, fall {fall}, probes {bits:012b} at {position}"
                    );
                    assert!(health.counter < rise + fall);
                }
            }
        }
    }
}
