//! The lease of the open port. The loop renews it at every beat; the port's helpers close
//! the port when it has expired. It is one number without a lock, so that neither side
//! can stall the other.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long the port may stay open. The loop writes it, the helpers check it.
#[derive(Debug)]
pub struct Lease {
    start: Instant,
    max_age: Duration,
    /// Nanoseconds since `start` (enough for 584 years); 0 = expired.
    deadline: AtomicU64,
}

impl Lease {
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

    /// Whether the loop moves: the lease has not expired.
    pub fn is_running(&self) -> bool {
        self.deadline.load(SeqCst) > self.now()
    }

    /// False if the lease had expired, whether or not a helper has noticed. It stays
    /// expired until [`Lease::restart`].
    pub fn renew(&self) -> bool {
        let (now, before) = (self.now(), self.deadline.load(SeqCst));
        let deadline = now + nanoseconds(self.max_age);
        before > now && self.replace(before, deadline)
    }

    /// Starts another lease, once every port is closed.
    pub fn restart(&self) {
        let deadline = self.now() + nanoseconds(self.max_age);
        self.deadline.store(deadline, SeqCst);
    }

    /// The time left, or nothing from the moment it expires until it starts again.
    pub fn left_or_expire(&self) -> Option<Duration> {
        let deadline = self.deadline.load(SeqCst);
        let left = deadline.saturating_sub(self.now());
        if left > 0 {
            return Some(Duration::from_nanos(left));
        }
        // Expire only the deadline we read. If the loop has renewed it meanwhile,
        // look again.
        if self.replace(deadline, 0) {
            None
        } else {
            self.left_or_expire()
        }
    }

    fn replace(&self, before: u64, deadline: u64) -> bool {
        self.deadline
            .compare_exchange(before, deadline, SeqCst, SeqCst)
            .is_ok()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}
