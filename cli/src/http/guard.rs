//! Who may ask: the host that a request names, then who its caller is, then whose page sent it.
//!
//! A browser sends to 127.0.0.1 whatever any page tells it to, and a name that leads there may be anybody's (DNS rebinding). So the
//! host must be one of ours before anything else is looked at, and a page of another origin is refused whatever it knows.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, StatusCode, Uri};

use super::answer::Refusal;
use super::token::{Access, Login, Way};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// This user, on the control socket.
    Control,
    /// Anybody, on TCP.
    Tcp {
        ip: IpAddr,
        /// Where the connection came in.
        local: SocketAddr,
    },
}

impl Peer {
    pub(super) fn is_control(self) -> bool {
        self == Self::Control
    }
}

/// The host that a request names, if it is one of ours; empty on the control socket.
pub(super) fn host<'a>(
    peer: Peer,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    allowed: &[String],
) -> Result<&'a str, Refusal> {
    let Peer::Tcp { local, .. } = peer else { return Ok("") };
    let refused = || {
        let message = "the Host header names no host that this node answers for (--allow-host adds one)";
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, message)
    };
    let host = single(headers, &header::HOST)?.ok_or_else(refused)?;
    let named = uri.authority().map(hyper::http::uri::Authority::as_str);
    if named.into_iter().chain([host]).all(|it| is_own(it, local, allowed)) {
        Ok(host)
    } else {
        Err(refused())
    }
}

fn is_own(authority: &str, local: SocketAddr, allowed: &[String]) -> bool {
    let (name, port) = split(authority);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let literal = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
    if let Ok(ip) = literal.parse::<IpAddr>() {
        // No name server decides where an address leads.
        return ip.is_loopback() || ip.to_canonical() == local.ip().to_canonical();
    }
    name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|it| it.eq_ignore_ascii_case(authority) || it.eq_ignore_ascii_case(name))
}

/// A host and its port.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

/// Who the caller is.
pub(super) fn login(peer: Peer, headers: &HeaderMap, access: &Access) -> Result<Login, Refusal> {
    if peer.is_control() {
        return Ok(Login::control());
    }
    let unknown = |message: &str| {
        Refusal::new(StatusCode::UNAUTHORIZED, message).with(header::WWW_AUTHENTICATE, "Bearer")
    };
    if let Some(value) = single(headers, &header::AUTHORIZATION)? {
        let token =
            value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|it| it.1);
        return token.and_then(|token| access.by_token(token.trim())).ok_or_else(|| {
            unknown("this is not the node's token, or no longer; `megatorrent token show` prints it")
        });
    }
    let mut cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.find_map(|value| access.by_cookies(value)).ok_or_else(|| {
        unknown("log in: `Authorization: Bearer TOKEN` (`megatorrent token show`), or by a login link")
    })
}

/// Refuses what another origin's page sent. `host` is what [`host`] found.
pub(super) fn origin(
    peer: Peer,
    method: &Method,
    headers: &HeaderMap,
    host: &str,
    login: Option<&Login>,
) -> Result<(), Refusal> {
    const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let refused = |message: &str| Err(Refusal::new(StatusCode::FORBIDDEN, message));
    if peer.is_control() {
        return Ok(());
    }
    // Another port of this host is another origin, though it is the same site.
    if single(headers, &FETCH_SITE)?.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return refused("another site's page may not ask this node");
    }
    match single(headers, &header::ORIGIN)? {
        Some(origin) if is_origin_of(origin, host) => Ok(()),
        Some(_) => refused(
            "another origin's page may not ask this node; behind a proxy, have it pass the Host header on as it came",
        ),
        // A browser says the origin of every POST. A cookie is sent by whatever page asks, so what says none is no page of ours.
        None if login.is_some_and(|it| it.way == Way::Cookie) && *method == Method::POST => {
            refused("a request with a cookie must say its Origin")
        }
        None => Ok(()),
    }
}

/// Whether an origin is `http` or `https` on a host. A port that the scheme implies may be left out.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let (authority, implied) = if let Some(it) = origin.strip_prefix("http://") {
        (it, "80")
    } else if let Some(it) = origin.strip_prefix("https://") {
        (it, "443")
    } else {
        return false;
    };
    let full = |authority| {
        let (name, port) = split(authority);
        (name.to_ascii_lowercase(), port.unwrap_or(implied).to_owned())
    };
    full(authority) == full(host)
}

/// The one value of a header. Two may be read in two ways.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let bad =
        || Refusal::new(StatusCode::BAD_REQUEST, format!("the header {name} is there twice, or no text"));
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(bad());
    }
    first.map(|value| value.to_str().map_err(|_| bad())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(authority: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|&it| it.to_owned()).collect();
        is_own(authority, "192.0.2.1:3000".parse().expect("an address"), &allowed)
    }

    #[test]
    fn hosts_are_loopback_what_is_listened_on_and_what_was_allowed() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:3000", "127.9.9.9", "[::1]:3000", "192.0.2.1"] {
            assert!(own(host, &[]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "192.0.2.2",
            "127.0.0.1.evil.example",
            "localhost:x",
            "evil@localhost",
            "[::2]",
            "localhost:3000:1",
            "localhost.",
            "0.0.0.0",
            "[::]:3000",
        ] {
            assert!(!own(host, &[]), "{host}");
        }
        assert!(own("node.example:8443", &["node.example"]) && own("node.example", &["Node.Example"]));
        assert!(
            own("node.example:8443", &["node.example:8443"]) && !own("node.example", &["node.example:8443"])
        );
    }

    #[test]
    fn an_origin_is_ours_on_its_scheme_host_and_port() {
        for (origin, host) in [
            ("http://localhost:3000", "localhost:3000"),
            ("https://node.example", "node.example"),
            ("https://node.example", "Node.example:443"),
            ("http://[::1]:3000", "[::1]:3000"),
        ] {
            assert!(is_origin_of(origin, host), "{origin}");
        }
        for (origin, host) in [
            ("null", "localhost:3000"),
            ("http://localhost:8080", "localhost:3000"),
            ("http://evil.example", "localhost:3000"),
            ("http://localhost", "localhost:3000"),
            ("file://", ""),
            ("http://node.example:443", "node.example"),
        ] {
            assert!(!is_origin_of(origin, host), "{origin}");
        }
    }
}
