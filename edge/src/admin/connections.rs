//! Connections to the admin address: so many, with so much in them, for so long.
//!
//! Nobody has to prove anything to open one, and each takes a descriptor that the store may need. When all
//! places are taken, the connection that was not answered for longest makes room, so whoever hoards connections
//! keeps no operator out; only while all of them are being answered is a new one closed at once.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::guard::CameTo;
use crate::metrics::{Number, Text};

/// Connections at once: a scraper, a load balancer, probes and people with a terminal each have a few. Each costs a
/// descriptor and at most two buffers.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// How long a connection waits for a request, from its beginning or the last answer to the end of the head. Requests
/// come at once; a scraper that comes back later connects anew.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may wait for its peer to read it. The longest is some hundred kilobytes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of a request line and its headers. Browsers and proxies stay below 8 KiB.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Bytes that are read, or written, before they are handed on: a head fits.
const BUFFER_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;

/// How long nothing is accepted after the system has refused: for want of descriptors or memory, which trying again
/// at once does not bring.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What became of connections. Written by the runtime's only thread.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    open: Number,
    accepted: Number,
    full: Number,
    hoarded: Number,
    timed_out: Number,
    accept_failed: Number,
}

impl Counts {
    pub(crate) fn write(&self, text: &mut Text) {
        let name = "roadstead_admin_connections";
        text.family(name, "gauge", "Connections to the admin address.");
        text.sample(&[], self.open.get());
        let name = "roadstead_admin_connections_accepted";
        text.family(name, "counter", "Connections taken at the admin address.");
        text.sample(&[], self.accepted.get());
        let name = "roadstead_admin_connections_closed";
        let help = "Connections to the admin address that were ended early: all were busy, one made room \
                    for a new one, or its peer took too long.";
        text.family(name, "counter", help);
        for (reason, count) in [
            ("full", &self.full),
            ("hoarded", &self.hoarded),
            ("timeout", &self.timed_out),
        ] {
            text.sample(&[("reason", reason)], count.get());
        }
        let name = "roadstead_admin_accept_failed";
        let help = "Times the system had no connection to give to the admin address.";
        text.family(name, "counter", help);
        text.sample(&[], self.accept_failed.get());
    }
}

/// Takes connections until it is dropped, and ends them then.
pub(crate) async fn serve(listener: TcpListener, router: Router, counts: Arc<Counts>) {
    let mut connections = Connections {
        router,
        counts,
        tasks: JoinSet::new(),
        places: HashMap::new(),
        refused: false,
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.take(stream).await,
                Err(error) => connections.accept_failed(&error).await,
            },
            Some(ended) = connections.tasks.join_next_with_id() => connections.forget(ended),
        }
        let open = connections.tasks.len();
        connections.counts.open.set(open as u64);
    }
}

/// The connections of the moment.
struct Connections {
    router: Router,
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
    places: HashMap<Id, Place>,
    /// The system refused the last one.
    refused: bool,
}

/// A connection that is open.
struct Place {
    task: AbortHandle,
    state: Arc<State>,
}

impl Connections {
    async fn take(&mut self, stream: TcpStream) {
        self.refused = false;
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
        if self.tasks.len() >= CONNECTIONS_MAX && !self.make_room().await {
            self.counts.full.add(1);
            return;
        }
        self.counts.accepted.add(1);
        let state = Arc::new(State::default());
        let (router, counts) = (self.router.clone(), self.counts.clone());
        let task = self
            .tasks
            .spawn(hold(stream, router, state.clone(), counts));
        self.places.insert(task.id(), Place { task, state });
    }

    /// Ends the connection that was not answered for longest; false if all are being answered. When it returns, the
    /// descriptor is free.
    async fn make_room(&mut self) -> bool {
        let idle = self.places.values().filter(|place| !place.state.is_busy());
        let Some(longest) = idle.min_by_key(|place| place.state.since()) else {
            return false;
        };
        longest.task.abort();
        self.counts.hoarded.add(1);
        if let Some(ended) = self.tasks.join_next_with_id().await {
            self.forget(ended);
        }
        true
    }

    /// Without descriptors, room is made all the same: whoever has got one gives it back.
    async fn accept_failed(&mut self, error: &io::Error) {
        self.counts.accept_failed.add(1);
        if !std::mem::replace(&mut self.refused, true) {
            tracing::error!(%error, "the admin address gets no connection from the system");
        }
        self.make_room().await;
        tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        self.places.remove(&id);
    }
}

/// Whether a connection is being answered, and since when it is or is not.
#[derive(Debug)]
struct State(Mutex<(bool, Instant)>);

impl Default for State {
    fn default() -> Self {
        Self(Mutex::new((false, Instant::now())))
    }
}

impl State {
    fn get(&self) -> (bool, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, busy: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (busy, Instant::now());
    }

    fn is_busy(&self) -> bool {
        self.get().0
    }

    fn since(&self) -> Instant {
        self.get().1
    }
}

/// Answers the requests of one connection until it ends.
async fn hold(stream: TcpStream, router: Router, state: Arc<State>, counts: Arc<Counts>) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let answers = TowerToHyperService::new(router);
    let asked = state.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(CameTo(local.ip()));
        let (answer, state) = (answers.call(request.map(Body::new)), asked.clone());
        async move {
            state.set(true);
            let answer = answer.await;
            state.set(false);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let timed_out = tokio::select! {
        // Whoever sends no HTTP is gone by this.
        ended = connection => ended.is_err_and(|error| error.is_timeout()),
        () = stalled(&state) => true,
    };
    counts.timed_out.add(u64::from(timed_out));
}

/// Waits until nothing has happened on a connection for too long: its peer does not read the answer.
async fn stalled(state: &State) {
    loop {
        tokio::time::sleep(ANSWER_TIMEOUT).await;
        let (busy, since) = state.get();
        if !busy && since.elapsed() >= ANSWER_TIMEOUT {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    /// A served address: `/` answers at once, `/slow` when it is told to.
    struct Served {
        address: std::net::SocketAddr,
        counts: Arc<Counts>,
        /// Requests for `/slow` that are being answered.
        begun: Arc<Number>,
        told: Arc<Notify>,
    }

    async fn start() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("bound");
        let (counts, told) = (Arc::new(Counts::default()), Arc::new(Notify::new()));
        let begun = Arc::new(Number::default());
        let waits = (begun.clone(), told.clone());
        let slow = move || {
            let (begun, told) = waits.clone();
            async move {
                begun.add(1);
                told.notified().await;
            }
        };
        let router = Router::new()
            .route("/", routing::get(|| async { "at once" }))
            .route("/slow", routing::get(slow));
        tokio::spawn(serve(listener, router, counts.clone()));
        Served {
            address,
            counts,
            begun,
            told,
        }
    }

    impl Served {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("it listens")
        }

        async fn ask(&self, path: &str) -> TcpStream {
            let mut stream = self.connect().await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            stream
        }
    }

    /// Waits until a number has this value.
    async fn until(number: &Number, value: u64) {
        while number.get() != value {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What comes next on a connection; nothing at its end.
    async fn next(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = [0; 1024];
        // An end may be a reset.
        let length = stream.read(&mut bytes).await.unwrap_or(0);
        bytes[..length].to_vec()
    }

    #[tokio::test]
    async fn fc3_the_connection_that_was_not_answered_for_longest_makes_room() {
        let served = start().await;
        let mut streams = Vec::new();
        for n in 1..=CONNECTIONS_MAX as u64 {
            streams.push(served.connect().await);
            until(&served.counts.accepted, n).await;
        }
        // The first one is used.
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        streams[0].write_all(request).await.expect("sent");
        assert!(next(&mut streams[0]).await.ends_with(b"at once"));

        let mut late = served.ask("/").await;
        assert!(next(&mut late).await.ends_with(b"at once"));
        assert_eq!(next(&mut streams[1]).await, b"", "the second is ended");
        assert_eq!(served.counts.hoarded.get(), 1);
        for n in [0, 2] {
            let stream = &mut streams[n];
            stream.write_all(request).await.expect("sent");
            assert!(next(stream).await.ends_with(b"at once"), "still there");
        }
        assert_eq!(served.counts.open.get(), CONNECTIONS_MAX as u64);
    }

    #[tokio::test]
    async fn fc3_while_all_are_being_answered_a_new_one_is_closed() {
        let served = start().await;
        let mut streams = Vec::new();
        for n in 1..=CONNECTIONS_MAX as u64 {
            streams.push(served.ask("/slow").await);
            until(&served.begun, n).await;
        }
        let mut late = served.ask("/").await;
        assert_eq!(next(&mut late).await, b"");
        let counts = &served.counts;
        assert_eq!((counts.full.get(), counts.hoarded.get()), (1, 0));

        served.told.notify_waiters();
        for stream in &mut streams {
            assert!(next(stream).await.starts_with(b"HTTP/1.1 200"));
        }
        let mut late = served.ask("/").await;
        assert!(next(&mut late).await.ends_with(b"at once"), "there is room");
    }
}
