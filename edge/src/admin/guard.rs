//! Which requests are answered: those that were meant for this address.
//!
//! A page that an operator visits can make the browser ask any address, also one on loopback. It may not read the answer,
//! unless its own name leads to that address (DNS rebinding): then the request names it as its host. So the host
//! of a request must be a name that no stranger can choose. Its port is not looked at: it is another one behind
//! `ssh -L`, and a name is what an attacker lacks.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::metrics::{Number, Text};

/// Where a request came in: the address of this end of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CameTo(pub(crate) IpAddr);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Guard {
    names: Vec<String>,
    refused: [Number; Refusal::ALL.len()],
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It says no host, or several, or what is none (RFC 9112 section 3.2).
    Malformed,
    /// It was meant for somebody else.
    Host,
    /// A page of somebody else asks.
    Origin,
}

impl Refusal {
    const ALL: [Self; 3] = [Self::Malformed, Self::Host, Self::Origin];

    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Host => "host",
            Self::Origin => "origin",
        }
    }

    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "one Host header is needed\n"),
            Self::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                "not the name of this address: see admin_names\n",
            ),
            Self::Origin => (StatusCode::FORBIDDEN, "not for other pages\n"),
        }
    }
}

impl Guard {
    /// Answers for these names, beside loopback and the address itself.
    pub(crate) fn new(names: &[String]) -> Self {
        Self {
            names: names.iter().map(|name| plain(name).to_owned()).collect(),
            refused: Default::default(),
        }
    }

    pub(crate) fn write(&self, text: &mut Text) {
        let name = "roadstead_admin_refused";
        let help = "Requests to the admin address that were not meant for it, or that a foreign page made.";
        text.family(name, "counter", help);
        for refusal in Refusal::ALL {
            let count = &self.refused[refusal as usize];
            text.sample(&[("reason", refusal.name())], count.get());
        }
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let came_to = request.extensions().get::<CameTo>().map(|came| came.0);
        let (headers, target) = (request.headers(), request.uri().authority());
        let host = host(headers)?;
        if host.is_none() && target.is_none() && request.version() > Version::HTTP_10 {
            return Err(Refusal::Malformed);
        }
        // An absolute target counts in place of the header (RFC 9112 section 3.2.2). Here neither may be foreign.
        let mut hosts = host.iter().chain(target);
        if !hosts.all(|host| self.is_ours(host.host(), came_to)) {
            return Err(Refusal::Host);
        }
        let own = target.or(host.as_ref());
        match headers.get(ORIGIN) {
            Some(origin) if !own.is_some_and(|own| is_of(origin, own)) => Err(Refusal::Origin),
            _ => Ok(()),
        }
    }

    /// Whether a host is one that only the operator can have named.
    fn is_ours(&self, host: &str, came_to: Option<IpAddr>) -> bool {
        let host = plain(host);
        let is_own = match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) => {
                address.is_loopback() || came_to.is_some_and(|own| own.to_canonical() == address)
            }
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        let mut names = self.names.iter();
        is_own || names.any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// The host that the header names; none only if there is no header.
fn host(headers: &HeaderMap) -> Result<Option<Authority>, Refusal> {
    let mut values = headers.get_all(HOST).iter();
    let (first, second) = (values.next(), values.next());
    match (first, second) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let authority = Authority::try_from(value.as_bytes());
            authority.map(Some).map_err(|_| Refusal::Malformed)
        }
        (Some(_), Some(_)) => Err(Refusal::Malformed),
    }
}

/// Whether an origin (RFC 6454 section 7) is that of pages from this host.
fn is_of(origin: &HeaderValue, host: &Authority) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let origin = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str()))
}

/// Whether this is a host as [`Guard`] compares it: a name or an address, without a port.
pub(crate) fn is_host(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_of_name);
    is_name || plain(name).parse::<IpAddr>().is_ok()
}

/// A host without the brackets of an IPv6 address and the dot at the end of a full name.
fn plain(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or_else(|| host.strip_suffix('.').unwrap_or(host))
}

/// Answers what passes, and lets no page of another origin use the answer in its own.
pub(crate) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            guard.refused[refusal as usize].add(1);
            refusal.answer().into_response()
        }
    };
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    let headers = response.headers_mut();
    headers.insert(policy, HeaderValue::from_static("same-origin"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const CAME_TO: [u8; 4] = [10, 1, 2, 3];

    fn request(target: &str, version: Version, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.extension(CameTo(CAME_TO.into()));
        request.body(Body::empty()).expect("a request")
    }

    fn verdict(target: &str, version: Version, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let guard = Guard::new(&["metrics.example".into(), "2001:db8::7".into()]);
        guard.check(&request(target, version, headers))
    }

    fn of_host(host: &str) -> Result<(), Refusal> {
        verdict("/metrics", Version::HTTP_11, &[("host", host)])
    }

    #[test]
    fn fc9_only_names_that_no_stranger_can_choose_are_answered() {
        for ours in [
            "localhost",
            "LocalHost:9433",
            "localhost.:1",
            "127.0.0.1:9433",
            "127.9.9.9",
            "[::1]:9433",
            "[::ffff:127.0.0.1]",
            "10.1.2.3",
            "10.1.2.3:9433",
            "[::ffff:10.1.2.3]:1",
            "metrics.example:9433",
            "METRICS.example.",
            "[2001:db8::7]:80",
        ] {
            assert_eq!(of_host(ours), Ok(()), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9433",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "xmetrics.example",
            "10.1.2.4",
            "0.0.0.0:9433",
            "[::]",
            "[2001:db8::8]",
            "2130706433",
            "user@evil.example",
        ] {
            assert_eq!(of_host(foreign), Err(Refusal::Host), "{foreign}");
        }
    }

    #[test]
    fn fc9_a_request_names_one_host() {
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        assert_eq!(verdict("/", new, &[]), Err(Refusal::Malformed));
        // Health checks of some load balancers; no browser speaks it.
        assert_eq!(verdict("/", old, &[]), Ok(()));
        for host in ["", "a b", "localhost:x:y"] {
            assert_eq!(of_host(host), Err(Refusal::Malformed), "{host:?}");
        }
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(verdict("/", new, &two), Err(Refusal::Malformed));
        for (target, host) in [
            ("http://evil.example/metrics", "localhost"),
            ("http://localhost/metrics", "evil.example"),
        ] {
            let verdict = verdict(target, new, &[("host", host)]);
            assert_eq!(verdict, Err(Refusal::Host), "{target}");
        }
    }

    #[test]
    fn fc9_a_name_that_would_never_match_is_noticed() {
        for name in ["metrics.example", "box", "10.0.0.1", "::1", "[::1]"] {
            assert!(is_host(name), "{name}");
        }
        for name in [
            "",
            "a:9433",
            "http://a",
            "a/b",
            "u@a",
            "10.0.0.1:80",
            "[::1]:80",
            "*",
        ] {
            assert!(!is_host(name), "{name}");
        }
    }

    #[test]
    fn fc9_a_foreign_page_is_refused() {
        let of_origin = |origin| {
            let headers = [("host", "localhost:9433"), ("origin", origin)];
            verdict("/metrics", Version::HTTP_11, &headers)
        };
        assert_eq!(of_origin("http://localhost:9433"), Ok(()));
        assert_eq!(of_origin("https://LOCALHOST:9433"), Ok(()));
        for foreign in [
            "http://evil.example",
            "http://localhost:3000",
            "http://localhost:9433.evil.example",
            "http://127.0.0.1:9433",
            "localhost:9433",
            "null",
            "",
        ] {
            assert_eq!(of_origin(foreign), Err(Refusal::Origin), "{foreign}");
        }
        let alone = verdict("/", Version::HTTP_10, &[("origin", "http://evil.example")]);
        assert_eq!(alone, Err(Refusal::Origin));
    }
}
