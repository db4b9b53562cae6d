//! The server under load: which process it is, and what it uses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::process;

/// The admin endpoint answers from memory; longer means that it is not there.
const TIMEOUT: Duration = Duration::from_secs(3);

/// More than any health answer or metrics page has.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Finds the server's process and follows it across a restart.
#[derive(Debug)]
pub(crate) struct Target {
    admin: Option<SocketAddr>,
    pid: Option<u32>,
    /// CPU time of earlier processes, each at its last sample.
    cpu_before: Micros,
    last: Option<process::Usage>,
    restarts: u32,
}

/// The server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) pid: u32,
    pub(crate) rss_bytes: u64,
    /// Of all its processes since the first sample of this target.
    pub(crate) cpu: Micros,
}

#[derive(Deserialize)]
struct Health {
    pid: u32,
}

impl Target {
    /// A server at an address, whose process is given, or is asked for at its admin address. A process on
    /// another machine is none of this one's, whoever has its number here.
    pub(crate) fn new(server: SocketAddr, pid: Option<u32>, admin: Option<SocketAddr>) -> Self {
        let pid = pid.filter(|_| is_here(server));
        let admin = admin.filter(|admin| is_here(*admin));
        Self {
            admin,
            pid,
            cpu_before: 0,
            last: None,
            restarts: 0,
        }
    }

    /// A server of which nothing is known.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::new(SocketAddr::from(([127, 0, 0, 1], 9)), None, None)
    }

    /// How often the process was found to be another one.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Its memory and CPU time; `None` if its process is not known, not there or not on this machine.
    pub(crate) fn sample(&mut self) -> Option<Sample> {
        let known = self.pid.and_then(|pid| Some((pid, process::usage(pid)?)));
        let (pid, usage) = known.or_else(|| self.find_again())?;
        self.last = Some(usage);
        Some(Sample {
            pid,
            rss_bytes: usage.rss_bytes,
            cpu: self.cpu_before + usage.cpu,
        })
    }

    fn find_again(&mut self) -> Option<(u32, process::Usage)> {
        let pid = pid_at(self.admin?).ok()?;
        let usage = process::usage(pid)?;
        if self.pid.is_some_and(|before| before != pid) {
            self.restarts += 1;
            self.cpu_before += self.last.map_or(0, |last| last.cpu);
        }
        self.pid = Some(pid);
        Some((pid, usage))
    }
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_here(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

fn pid_at(admin: SocketAddr) -> Result<u32> {
    let body = get(admin, "/healthz")?;
    let health: Health = serde_json::from_str(&body).context("the answer of /healthz")?;
    Ok(health.pid)
}

/// The body of a page of the admin endpoint.
pub(crate) fn get(admin: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    body(&answer)
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split_whitespace().nth(1).context("no HTTP status")?;
    if status != "200" {
        bail!("HTTP status {status}");
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        assert_eq!(
            body("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").expect("good"),
            "{}"
        );
        assert!(body("HTTP/1.0 503 No\r\n\r\n{}").is_err());
        assert!(body("nonsense").is_err());
    }

    #[test]
    fn the_process_is_asked_for_at_the_admin_address() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = listener.local_addr().expect("bound");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = [0; 512];
            let length = stream.read(&mut request).expect("a request");
            assert!(request[..length].starts_with(b"GET /healthz "));
            let pid = std::process::id();
            write!(
                stream,
                "HTTP/1.0 200 OK\r\n\r\n{{\"status\":\"ok\",\"pid\":{pid}}}"
            )
            .expect("sent");
        });
        let sample = Target::new(admin, None, Some(admin))
            .sample()
            .expect("found");
        assert_eq!(sample.pid, std::process::id());
        server.join().expect("the server ends");
    }

    #[test]
    fn a_target_that_is_nowhere_gives_no_sample() {
        let here = "127.0.0.1:4433".parse().expect("an address");
        assert_eq!(Target::none().sample(), None);
        assert_eq!(Target::new(here, Some(u32::MAX), None).sample(), None);
    }

    #[test]
    fn a_process_of_another_machine_is_not_looked_for_here() {
        let here = "127.0.0.1:4433".parse().expect("an address");
        // TEST-NET-1 (RFC 5737) is nobody's.
        let away = "192.0.2.1:4433".parse().expect("an address");
        let own = Some(std::process::id());
        assert!(Target::new(here, own, None).sample().is_some());
        assert!(Target::new(away, own, None).sample().is_none());
        assert!(Target::new(away, None, Some(away)).sample().is_none());
    }
}
