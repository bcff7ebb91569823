//! The words of the lab and the numbers that it takes from production: plain data. Times
//! are real seconds, as in a cluster; only [`Scale`] turns them into what the lab waits.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One line: what was being done, to what, what the system said.
pub type Result<T> = std::result::Result<T, String>;

/// The switch, as README.md recommends it: a check every 2 s, two failures take a node
/// out, one success takes it back.
pub const INTER: f64 = 2.0;
pub const FALL: u32 = 2;
pub const RISE: u32 = 1;

/// healthport's defaults; [`Check::Healthport`] has the others.
pub const INTERVAL: f64 = 1.0;
pub const FAST_INTERVAL: f64 = 0.1;

// The router's times. README.md says where they were measured.

/// For so long after SIGTERM the router serves and says that it is not ready.
pub const DRAIN: f64 = 45.0;
/// Then it refuses new connections and waits for the open ones: least and most.
pub const LINGER: (f64, f64) = (1.0, 30.0);
/// Then it exits.
pub const EXIT: f64 = 1.0;
/// The timeout of the router's own check of its port 80 (backend-http).
pub const BACKEND_TIMEOUT: f64 = 2.0;
/// From exec until 1936 is open.
pub const OPENS: f64 = 0.03;
/// A router writes a new configuration no more often than this, however many routes
/// change. Soon after the first one of a start it writes a second.
pub const RELOAD_INTERVAL: f64 = 5.0;
/// How long the router's HAProxy waits for a silent client or server.
pub const SILENCE: f64 = 30.0;

/// A router with few routes.
pub const FEW: u32 = 22;

/// What the number of routes makes of a router: from exec to ready, with an API that
/// answers at once, and how long it takes to write its configuration, least and most.
pub fn times(routes: u32) -> (f64, f64, f64) {
    match routes {
        0..10_000 => (0.2, 0.001, 0.001),
        10_000..30_000 => (3.6, 1.0, 1.9),
        30_000.. => (15.0, 3.1, 9.7),
    }
}

/// Seconds since 1970, the clock of every part of the lab.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs_f64()
}

/// How much faster than production the lab runs: 0.1 makes 45 s 4.5 s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale(pub f64);

impl Scale {
    pub fn wait(self, real: f64) -> Duration {
        Duration::from_secs_f64(real * self.0)
    }

    pub fn millis(self, real: f64) -> u128 {
        self.wait(real).as_millis().max(1)
    }

    pub fn real(self, measured: f64) -> f64 {
        measured / self.0
    }
}

/// How the switch asks a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Check {
    Traffic,
    Stats,
    Http,
    /// A healthport of its own: its `--timeout` and its `--fall`.
    Healthport(f64, u32),
}

/// healthport as it comes.
pub const DEFAULTS: Check = Check::Healthport(10.0, 2);
pub const CHECKS: [Check; 4] = [Check::Traffic, Check::Stats, Check::Http, DEFAULTS];
/// All healthports; the others show what a shorter patience costs.
pub const HEALTHPORTS: [Check; 3] = [
    DEFAULTS,
    Check::Healthport(3.0, 2),
    Check::Healthport(0.5, 1),
];

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Traffic => write!(f, "TCP on 80"),
            Check::Stats => write!(f, "TCP on 1936"),
            Check::Http => write!(f, "HTTP on 1936"),
            check if *check == DEFAULTS => write!(f, "TCP on healthport"),
            Check::Healthport(timeout, fall) => {
                let timeout = Duration::from_secs_f64(*timeout);
                write!(f, "`--timeout {timeout:?} --fall {fall}`")
            }
        }
    }
}

/// The generations of the OpenShift router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// 4.4 to 4.22.
    Embedded,
    /// 4.23 and later: HAProxy is not a child of the router and outlives it.
    Sidecar,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// The states of a router's life. The router reports those in `SAID`; the lab records
/// the others, which it causes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    Reload,
    Hung,
    Dead,
    Drain1,
    Drain2,
    SidecarTail,
    Gone,
    Frozen,
    Killed,
}

use State::{Drain1, Drain2, Ready, Reload, SidecarTail, Starting};

impl State {
    pub const SAID: [State; 6] = [Starting, Ready, Reload, Drain1, Drain2, SidecarTail];

    /// Whether its router answers requests as it should.
    pub fn serves(self) -> bool {
        matches!(self, Ready | Reload | Drain1 | SidecarTail)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_uppercase())
    }
}

/// An address in the own loopback network of a lab, which is named after its process: so
/// two can run side by side.
pub fn host(lab: u32, last: u8) -> Ipv4Addr {
    let [.., high, low] = lab.to_be_bytes();
    Ipv4Addr::new(127, 128 + (high & 63), low, last)
}

/// The ports of one node.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub host: Ipv4Addr,
    /// Added to those of production: who is not root may not bind a port below 1024.
    pub offset: u16,
}

impl Ports {
    pub fn at(self, port: u16) -> SocketAddr {
        SocketAddr::from((self.host, port + self.offset))
    }

    /// Where the switch's check connects.
    pub fn checked(self, check: Check) -> SocketAddr {
        match check {
            Check::Traffic => self.at(80),
            Check::Stats | Check::Http => self.at(1936),
            Check::Healthport(..) => {
                let number = HEALTHPORTS
                    .iter()
                    .position(|&healthport| healthport == check);
                self.at(18898 + number.unwrap_or(0) as u16)
            }
        }
    }
}
