//! The vocabulary of the lab, and the numbers that it takes from production. All of it
//! is plain data. Times are real seconds, as in a cluster; only [`Scale`] turns them
//! into the time that the lab waits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One line: what was being done, to what, what the system said.
pub type Result<T> = std::result::Result<T, String>;

/// Between two checks of the switch: HAProxy's default.
pub const INTER: f64 = 2.0;
/// How many checks in a row take a server up, or down: HAProxy's defaults.
pub const RISE: u32 = 2;
pub const FALL: u32 = 3;
/// healthport's defaults.
pub const INTERVAL: f64 = 1.0;
pub const FAST_INTERVAL: f64 = 0.1;
pub const TIMEOUT: f64 = 3.0;
pub const PROBE_FALL: u32 = 2;
/// The defaults that were published first: this timeout, and a single bad answer closes.
pub const FIRST_TIMEOUT: f64 = 0.5;
pub const FIRST_PROBE_FALL: u32 = 1;

/// For so long after SIGTERM the router serves and says that it is not ready.
pub const DRAIN: f64 = 45.0;
/// Then it refuses new connections and waits for the open ones: least and most.
pub const LINGER: (f64, f64) = (1.0, 30.0);
/// Then it exits: 47 s after SIGTERM when idle, 76 s when busy.
pub const EXIT: f64 = 1.0;
/// The timeout of the router's own check of its port 80 (backend-http).
pub const BACKEND_TIMEOUT: f64 = 2.0;
/// From exec until 1936 is open: 25 to 43 ms.
pub const OPENS: f64 = 0.03;
/// A router writes a new configuration no more often than this, however many routes
/// change. Soon after the first one of a start it writes a second.
pub const RELOAD_INTERVAL: f64 = 5.0;
/// How long the router's HAProxy waits for a silent client or server.
pub const SILENCE: f64 = 30.0;

/// How the number of routes changes a router, measured on a real one (openshift/router
/// 4b401a86).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    pub routes: u32,
    /// From exec to ready, with an API that answers at once.
    pub start: f64,
    /// How long it takes to write its configuration, least and most; readiness waits
    /// for that.
    pub write: (f64, f64),
}

impl Size {
    pub const SMALL: Size = Size {
        routes: 22,
        start: 0.2,
        write: (0.001, 0.001),
    };
    pub const MEDIUM: Size = Size {
        routes: 3_000,
        start: 1.3,
        write: (0.26, 0.83),
    };
    pub const LARGE: Size = Size {
        routes: 10_000,
        start: 3.6,
        write: (1.0, 1.9),
    };
    pub const ALL: [Size; 3] = [Size::SMALL, Size::MEDIUM, Size::LARGE];
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Traffic,
    Stats,
    Http,
    Healthport,
    /// A healthport with the defaults that were published first.
    FirstPublished,
}

impl Check {
    pub const ALL: [Check; 5] = [
        Check::Traffic,
        Check::Stats,
        Check::Http,
        Check::Healthport,
        Check::FirstPublished,
    ];

    /// Without the settings that are history.
    pub const MAIN: [Check; 4] = [Check::Traffic, Check::Stats, Check::Http, Check::Healthport];

    pub fn name(self) -> &'static str {
        match self {
            Check::Traffic => "TCP on 80",
            Check::Stats => "TCP on 1936",
            Check::Http => "HTTP on 1936",
            Check::Healthport => "TCP on healthport",
            Check::FirstPublished => "healthport as first published",
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

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Http, Mode::Tcp, Mode::NoRetry];
}

/// The generations of the OpenShift router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// 3.x and 4.0 to 4.3: port 80 answers 503 while it starts.
    Legacy,
    /// 4.4 to 4.22.
    Embedded,
    /// 4.23 and later: HAProxy is not a child of the router and outlives it.
    Sidecar,
}

impl Profile {
    pub const ALL: [Profile; 3] = [Profile::Embedded, Profile::Legacy, Profile::Sidecar];

    pub fn name(self) -> &'static str {
        match self {
            Profile::Legacy => "legacy",
            Profile::Embedded => "embedded",
            Profile::Sidecar => "sidecar",
        }
    }
}

/// The states of a router's life. The lab records those that it causes itself (a
/// stopped or killed process); the router reports all others.
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

impl State {
    pub const ALL: [State; 12] = [
        State::Absent,
        State::Starting,
        State::Ready,
        State::Reload,
        State::Hung,
        State::Dead,
        State::Drain1,
        State::Drain2,
        State::SidecarTail,
        State::Gone,
        State::Frozen,
        State::Killed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            State::Absent => "ABSENT",
            State::Starting => "STARTING",
            State::Ready => "READY",
            State::Reload => "RELOAD",
            State::Hung => "HUNG",
            State::Dead => "DEAD",
            State::Drain1 => "DRAIN-1",
            State::Drain2 => "DRAIN-2",
            State::SidecarTail => "SIDECAR-TAIL",
            State::Gone => "GONE",
            State::Frozen => "FROZEN",
            State::Killed => "KILLED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to a node, in the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Start,
    /// The routes come late, after 8 s as in the recording.
    SlowStart,
    Drain,
    BusyDrain,
    Hung,
    Dead,
    Frozen,
    Killed,
    Rolling,
    /// A route changes every second, on all nodes.
    MediumReloads,
    LargeReloads,
}

impl Event {
    pub const ALL: [Event; 11] = [
        Event::Start,
        Event::SlowStart,
        Event::Drain,
        Event::BusyDrain,
        Event::Hung,
        Event::Dead,
        Event::Frozen,
        Event::Killed,
        Event::Rolling,
        Event::MediumReloads,
        Event::LargeReloads,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Event::Start => "start",
            Event::SlowStart => "start, the API takes 8 s",
            Event::Drain => "graceful drain, idle",
            Event::BusyDrain => "graceful drain, busy",
            Event::Hung => "hung HAProxy, 20 s",
            Event::Dead => "dead HAProxy, 20 s",
            Event::Frozen => "frozen, 20 s",
            Event::Killed => "kill -9",
            Event::Rolling => "rolling update",
            Event::MediumReloads => "reload, 3,000 routes",
            Event::LargeReloads => "reload, 10,000 routes",
        }
    }

    /// The size of the routers.
    pub fn size(self) -> Size {
        match self {
            Event::MediumReloads => Size::MEDIUM,
            Event::LargeReloads => Size::LARGE,
            _ => Size::SMALL,
        }
    }

    /// How long a router that starts waits for the API server.
    pub fn api(self) -> f64 {
        match self {
            Event::SlowStart => 8.0,
            _ => 0.0,
        }
    }

    /// Whether this event goes differently for a profile than for `embedded`: `legacy`
    /// starts, `sidecar` leaves and dies in its own way, and a rolling update shows both.
    pub fn differs_in(self, profile: Profile) -> bool {
        match profile {
            Profile::Embedded => true,
            Profile::Legacy => matches!(
                self,
                Event::Start | Event::SlowStart | Event::Killed | Event::Rolling
            ),
            Profile::Sidecar => matches!(
                self,
                Event::Drain | Event::BusyDrain | Event::Killed | Event::Rolling
            ),
        }
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

impl Network {
    /// Takes the first network that no other lab holds, from 127.0.1.x on.
    pub fn claim() -> Result<Network> {
        let claim = |number| TcpListener::bind((host(number, CLAIM), HEALTHPORT));
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
            offset: if usual { 0 } else { HIGH },
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

const CLAIM: u8 = 254;
const HEALTHPORT: u16 = 18898;
const HIGH: u16 = 10_000;

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

    pub fn healthport(self) -> SocketAddr {
        SocketAddr::new(self.host, HEALTHPORT)
    }

    pub fn first_published(self) -> SocketAddr {
        SocketAddr::new(self.host, HEALTHPORT + 1)
    }
}
