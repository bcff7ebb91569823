//! The lease of the open port: the loop renews it once per cycle, the port's
//! helpers close the port when it has run out. One number without a lock, so that
//! neither can stall the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Until when the port may stay open; shared by the loop, which renews it, and
/// the helpers, which look at it.
#[derive(Debug)]
pub struct Lease {
    start: Instant,
    max_age: Duration,
    /// Nanoseconds since `start` (enough for 584 years); 0 = has run out.
    deadline: AtomicU64,
}

impl Lease {
    /// The first one runs from now.
    pub fn new(max_age: Duration) -> Lease {
        Lease {
            start: Instant::now(),
            max_age,
            deadline: AtomicU64::new(nanoseconds(max_age)),
        }
    }

    fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// Whether the loop makes progress: it has not run out.
    pub fn is_running(&self) -> bool {
        self.deadline.load(Ordering::SeqCst) > self.now()
    }

    /// Starts anew; false if it had run out, whether or not a helper noticed.
    pub fn renew(&self) -> bool {
        let now = self.now();
        let before = self
            .deadline
            .swap(now + nanoseconds(self.max_age), Ordering::SeqCst);
        before > now
    }

    /// What is left, or nothing from the moment it has run out until renewed.
    pub fn left(&self) -> Option<Duration> {
        let deadline = self.deadline.load(Ordering::SeqCst);
        let left = deadline.saturating_sub(self.now());
        if left > 0 {
            return Some(Duration::from_nanos(left));
        }
        // Expire only the deadline we read. If the loop has renewed it meanwhile,
        // look again.
        match self
            .deadline
            .compare_exchange(deadline, 0, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => None,
            Err(_) => self.left(),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}
