//! The lease of the open port. The loop renews it once per cycle; the port's helpers
//! close the port when it has expired. It is one number without a lock, so that neither
//! side can stall the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the port may stay open. The loop renews it, the helpers check it.
#[derive(Debug)]
pub struct Lease {
    start: Instant,
    max_age: Duration,
    /// Nanoseconds since `start` (enough for 584 years); 0 = expired.
    deadline: AtomicU64,
}

impl Lease {
    /// Starts the first lease now.
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

    /// Whether the loop makes progress: the lease has not expired.
    pub fn is_running(&self) -> bool {
        self.deadline.load(Ordering::SeqCst) > self.now()
    }

    /// Renews the lease; false if it had expired, whether or not a helper noticed.
    pub fn renew(&self) -> bool {
        let now = self.now();
        let before = self
            .deadline
            .swap(now + nanoseconds(self.max_age), Ordering::SeqCst);
        before > now
    }

    /// The time left, or nothing from the moment it expires until it is renewed.
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
