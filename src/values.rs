//! Parses one value of the command line; returns nothing if it is not allowed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use ureq::http::{HeaderName, HeaderValue, Method, Uri};

/// A decimal number and a unit: `500ms`, `1.5s`, `2m`.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        _ => return None,
    };
    // Nine decimals of a second are nanoseconds.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(fraction.len())
        .ok()
        .filter(|&digits| digits <= 9)?;
    let whole = u128::from(whole.parse::<u64>().ok()?) * unit;
    let fraction = u128::from(fraction.parse::<u64>().ok()?) * unit / 10_u128.pow(digits);
    u64::try_from(whole + fraction)
        .ok()
        .map(Duration::from_nanos)
}

/// A whole number. `parse` alone would take "+1" too.
pub fn count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

pub fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

/// An absolute path: the working directory is the unit's or the image's.
pub fn path(text: &str) -> Option<PathBuf> {
    text.starts_with('/').then(|| text.into())
}

/// A method whose answer can be judged.
pub fn method(text: &str) -> Option<Method> {
    text.parse()
        .ok()
        .filter(|method| [Method::GET, Method::HEAD].contains(method))
}

/// A log level in lower case. "off" would also hide why the port is closed.
pub fn level(text: &str) -> Option<LevelFilter> {
    let level: LevelFilter = text.parse().ok()?;
    (level != LevelFilter::Off && text == level.as_str().to_lowercase()).then_some(level)
}

/// A URL that can be probed, whatever its host is.
pub fn url(text: &str) -> Option<Uri> {
    // Uri would drop a fragment. It is never sent, so it must be a mistake.
    if text.contains('#') {
        return None;
    }
    let url: Uri = text.parse().ok()?;
    let (host, authority) = (url.host()?, url.authority()?.as_str());
    // Uri treats an invalid port as none, which would become port 80. A user name
    // before the host fails here too: it would be sent as credentials.
    let port = authority.strip_prefix(host)?;
    let port_is_good = port.is_empty() || url.port_u16().is_some_and(|port| port > 0);
    let is_good = url.scheme_str() == Some("http") && !host.is_empty() && port_is_good;
    is_good.then_some(url)
}

/// An address that a TCP connect can reach. The system also lets a socket listen on a
/// multicast or broadcast address, but no connection ever arrives there.
pub fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    let ip = address.ip().to_canonical();
    let is_one = !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
    (address.port() > 0 && is_one).then_some(address)
}

/// Whether a socket on one address keeps another off the same port, or takes its
/// connections. A wildcard covers its family; `[::]` covers IPv4 too.
pub fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    // --listen '[::ffff:127.0.0.1]:1' opens 127.0.0.1.
    let (ip, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |ip: IpAddr, other: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    // The same link-local address is a different one on every link.
    let same = match (a, b) {
        (SocketAddr::V6(a), SocketAddr::V6(b)) if a.ip().is_unicast_link_local() => {
            a.ip() == b.ip() && a.scope_id() == b.scope_id()
        }
        _ => ip == other,
    };
    a.port() == b.port() && (same || covers(ip, other) || covers(other, ip))
}

/// A header that can be sent, without the blanks around its value.
pub fn http_header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    let value = value.trim_matches([' ', '\t']);
    if value.is_empty() {
        return None;
    }
    Some((name.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::overlap;

    #[test]
    fn addresses_that_overlap_on_a_port() {
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("127.0.0.1:1", "0.0.0.0:2", false),
            ("127.0.0.1:1", "[::1]:1", false),
            ("127.0.0.1:1", "[::]:1", true),
            ("0.0.0.0:1", "[::]:1", true),
            ("0.0.0.0:1", "0.0.0.0:1", true),
            ("0.0.0.0:1", "[::]:2", false),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::1]:1", "[::1]:1", true),
            ("[::1]:1", "[::]:1", true),
            ("[::1]:1", "[::2]:1", false),
            ("[::]:1", "[::]:1", true),
            // IPv4-mapped addresses.
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("[::ffff:127.0.0.1]:1", "127.0.0.2:1", false),
            ("[::ffff:127.0.0.1]:1", "0.0.0.0:1", true),
            ("[::ffff:0.0.0.0]:1", "127.0.0.1:1", true),
            ("[::ffff:0.0.0.0]:1", "[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", "[::]:1", true),
            // Scopes tell link-local addresses apart, and no others.
            ("[fe80::1%1]:1", "[fe80::1%2]:1", false),
            ("[fe80::1%1]:1", "[fe80::1%1]:1", true),
            ("[2001:db8::1%1]:1", "[2001:db8::1%2]:1", true),
            ("[fe80::1%1]:1", "[::]:1", true),
        ] {
            let (one, other) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(&one, &other), expected, "{a} and {b}");
            assert_eq!(overlap(&other, &one), expected, "{b} and {a}");
        }
    }
}
