//! The words of the lab and the numbers that it takes from production: plain data. Times
//! are real seconds, as in a cluster; only [`Scale`] turns them into what the lab waits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
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

/// How the number of routes changes a router.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    pub routes: u32,
    /// From exec to ready, with an API that answers at once.
    pub start: f64,
    /// How long it takes to write its configuration, least and most; readiness waits
    /// for that.
    pub write: (f64, f64),
}

const fn size(routes: u32, start: f64, write: (f64, f64)) -> Size {
    Size {
        routes,
        start,
        write,
    }
}

pub const SMALL: Size = size(22, 0.2, (0.001, 0.001));
pub const R3000: Size = size(3_000, 1.3, (0.26, 0.83));
pub const R10000: Size = size(10_000, 3.6, (1.0, 1.9));
pub const R30000: Size = size(30_000, 15.0, (3.1, 9.7));
pub const R50000: Size = size(50_000, 27.0, (6.2, 8.0));
pub const SIZES: [Size; 5] = [SMALL, R3000, R10000, R30000, R50000];

/// How long a rolling update waits between a ready node and the next one.
pub const MIN_READY: f64 = 30.0;

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
/// What a shorter patience costs; the second was the default of 0.1.
pub const HASTY: [Check; 2] = [Check::Healthport(3.0, 2), Check::Healthport(0.5, 1)];

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

/// What the switch forwards: `tcp`, as a layer-4 switch does, or `http`, where a lost
/// request shows as a 5xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Http,
    Tcp,
    /// `http` without retries: most layer-4 switches have none.
    NoRetry,
}

/// The generations of the OpenShift router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// 4.4 to 4.22.
    Embedded,
    /// 4.23 and later: HAProxy is not a child of the router and outlives it.
    Sidecar,
}

impl Profile {
    pub const ALL: [Profile; 2] = [Profile::Embedded, Profile::Sidecar];
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
    Absent,
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

/// The lab's own loopback network, with the nodes 127.N.1.1 to .3: so two labs can run
/// side by side on the real port numbers.
#[derive(Debug)]
pub struct Network {
    number: u8,
    /// Added to ports below 2000 where the user may not bind them.
    offset: u16,
    /// While the lab holds it, no other lab gets this network.
    _claim: TcpListener,
}

const HEALTHPORT: u16 = 18898;

impl Network {
    /// Takes the first network that no other lab holds, from 127.0.1.x on.
    pub fn claim() -> Result<Network> {
        let claim = |number| TcpListener::bind((host(number, 254), HEALTHPORT));
        let (number, claim) = (0..=254)
            .find_map(|number| Some((number, claim(number).ok()?)))
            .ok_or(format!(
                "cannot listen on any 127.N.1.254:{HEALTHPORT}: does something listen on 0.0.0.0:{HEALTHPORT}?"
            ))?;
        // They are taken where we are not root, or where the machine has a web server.
        let usual = [80, 443, 1936]
            .iter()
            .all(|&port| TcpListener::bind((host(number, 1), port)).is_ok());
        Ok(Network {
            number,
            offset: if usual { 0 } else { 10_000 },
            _claim: claim,
        })
    }

    /// The first three numbers with their dots. Every process of this lab has them in
    /// its command line.
    pub fn prefix(&self) -> String {
        format!("127.{}.1.", self.number)
    }

    pub fn node(&self, node: usize) -> Ports {
        Ports {
            host: host(self.number, node as u8 + 1),
            offset: self.offset,
        }
    }

    pub fn hello(&self) -> SocketAddr {
        SocketAddr::from((host(self.number, 4), 18080))
    }

    /// Where the switch listens for line number `line`.
    pub fn switch(&self, line: usize) -> SocketAddr {
        SocketAddr::from((host(self.number, 5), 18000 + line as u16))
    }
}

fn host(network: u8, last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, network, 1, last))
}

/// The ports of one node.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub host: IpAddr,
    pub offset: u16,
}

impl Ports {
    pub fn http(self) -> SocketAddr {
        SocketAddr::new(self.host, 80 + self.offset)
    }

    pub fn https(self) -> SocketAddr {
        SocketAddr::new(self.host, 443 + self.offset)
    }

    pub fn stats(self) -> SocketAddr {
        SocketAddr::new(self.host, 1936 + self.offset)
    }

    /// Where the switch's check connects.
    pub fn checked(self, check: Check) -> SocketAddr {
        match check {
            Check::Traffic => self.http(),
            Check::Stats | Check::Http => self.stats(),
            Check::Healthport(..) => {
                let hasty = HASTY.iter().position(|&hasty| hasty == check);
                let offset = hasty.map_or(0, |position| position as u16 + 1);
                SocketAddr::new(self.host, HEALTHPORT + offset)
            }
        }
    }
}
