//! s2n-quic, as its users use it: with tokio, its own sockets, and rustls as its TLS.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::hmac;
use bytes::Bytes;
use s2n_quic::{
    client::Connect,
    connection::{self, Handle},
    provider::{
        datagram::default as datagram,
        endpoint_limits::{ConnectionAttempt, Limiter, Outcome},
        event::{ConnectionMeta, Subscriber, events},
        io::tokio::Builder as Io,
        stateless_reset_token::{self, Generator},
        tls::rustls as tls,
    },
    stream::{PeerStream, ReceiveStream, SendStream},
};
use tokio::{
    runtime::Builder,
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    Implementation, locked_version,
    tickets::{self, Tickets},
    tokio_peer::{Orders, SharedFacts, Steps, TokioClient, TokioServer, compare, note},
};
use crate::{
    identity::Identity,
    scenario::Feature,
    script::{
        Client, ClientOptions, End, Order, Role, SERVER_NAME, Server, ServerOptions, Step, payload,
    },
    udp,
};

/// s2n-quic.
#[derive(Debug)]
pub(super) struct S2n;

impl Implementation for S2n {
    fn name(&self) -> &'static str {
        "s2n-quic"
    }

    fn version(&self) -> String {
        locked_version("s2n-quic")
    }

    fn lacks(&self, feature: Feature, role: Role) -> Option<&'static str> {
        match (feature, role) {
            (Feature::KeyUpdateByPeer, _) => Some("it has no call that begins a key update"),
            (Feature::Migration, Role::Client) => Some("a client does not migrate"),
            (Feature::VersionNegotiation, _) => Some("its versions can not be chosen"),
            // Seen, not documented: its server sent no ticket in a minute, and its client's rustls got
            // none of those that the same server's other clients resumed with.
            (Feature::Resumption, _) => Some("no ticket passes between it and its rustls"),
            // Seen: 1,300 packets of a connection that it had lost were answered by nothing.
            (Feature::StatelessReset, Role::Server) => Some("its server sent none"),
            _ => None,
        }
    }

    fn serve(&self, identity: &Identity, options: &ServerOptions) -> Result<Box<dyn Server>> {
        let tls = Arc::new(tickets::server(identity)?);
        let retry = options.retry;
        let server = TokioServer::start(async move |socket, facts, orders| {
            S2nServer {
                tls,
                retry,
                socket,
                facts,
            }
            .run(orders)
            .await
        })?;
        Ok(Box::new(server))
    }

    fn client(&self, identity: &Identity, _: &ClientOptions) -> Result<Box<dyn Client>> {
        let (tls, tickets) = tickets::client(identity)?;
        let make = |facts| {
            let io = Io::default().with_rx_socket(udp::bind()?)?.build()?;
            let client = s2n_quic::Client::builder()
                .with_tls(tls::Client::from(Arc::new(tls)))?
                .with_io(io)?
                .with_datagram(datagrams()?)?
                .start()
                .map_err(|e| anyhow!("{e}"))?;
            Ok(S2nClient {
                client,
                tickets,
                connection: None,
                facts,
            })
        };
        Ok(Box::new(TokioClient::new(make)?))
    }
}

fn datagrams() -> Result<datagram::Endpoint> {
    let builder = datagram::Endpoint::builder().with_send_capacity(16)?;
    Ok(builder.with_recv_capacity(16)?.build()?)
}

fn end(error: &connection::Error) -> End {
    match error {
        connection::Error::Application {
            error, initiator, ..
        } if initiator.is_remote() => End::Application {
            code: (*error).into(),
            reason: None,
        },
        connection::Error::Application { .. } => End::Here,
        connection::Error::StatelessReset { .. } => End::Reset,
        other => End::Other(other.to_string()),
    }
}

fn connected(handle: &Handle, facts: &SharedFacts) -> Result<()> {
    let alpn = handle.application_protocol()?;
    let remote = handle.remote_addr()?;
    note(facts, |facts| {
        facts.connected += 1;
        facts.alpn = String::from_utf8_lossy(&alpn).into_owned();
        facts.saw(remote);
    });
    Ok(())
}

struct S2nClient {
    client: s2n_quic::Client,
    tickets: Arc<Tickets>,
    connection: Option<s2n_quic::Connection>,
    facts: SharedFacts,
}

impl S2nClient {
    fn connection(&mut self) -> Result<&mut s2n_quic::Connection> {
        self.connection.as_mut().context("not connected")
    }
}

impl Steps for S2nClient {
    async fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Connect { to } => {
                let connect = Connect::new(*to).with_server_name(SERVER_NAME);
                let connection = self.client.connect(connect).await?;
                connected(&connection.handle(), &self.facts)?;
                self.connection = Some(connection);
            }
            Step::Echo { streams, bytes } => {
                let back = echo(self.connection()?, *streams, *bytes).await?;
                compare(&self.facts, *streams, *bytes, &back)?;
            }
            Step::EchoUni { streams, bytes } => {
                let back = echo_uni(self.connection()?, *streams, *bytes).await?;
                compare(&self.facts, *streams, *bytes, &back)?;
            }
            Step::Datagram => {
                datagram_and_back(&self.connection()?.handle()).await?;
                note(&self.facts, |facts| facts.datagrams += 1);
            }
            Step::AwaitTicket => self.tickets.wait().await,
            Step::Close { code, .. } => {
                let connection = self.connection()?;
                connection.close((*code).into());
                // It has no phrase to send. What it says of its end follows.
                while let Ok(Some(_)) = connection.accept().await {}
                note(&self.facts, |facts| facts.ends.push(End::Here));
                self.connection = None;
                self.client.wait_idle().await?;
            }
            Step::AwaitEnd => {
                let connection = self.connection()?;
                // A peer without state answers only to packets; it is over, if this fails.
                let _ = connection.handle().ping();
                let error = loop {
                    match connection.accept().await {
                        Ok(Some(_)) => {}
                        Ok(None) => bail!("it closed without an error"),
                        Err(error) => break error,
                    }
                };
                note(&self.facts, |facts| facts.ends.push(end(&error)));
            }
            Step::UpdateKeys | Step::Migrate | Step::ConnectInVain { .. } => {
                bail!("{step:?} is not offered")
            }
        }
        Ok(())
    }
}

async fn echo(
    connection: &mut s2n_quic::Connection,
    streams: usize,
    bytes: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut tasks = Vec::new();
    for n in 0..streams {
        let (mut receive, mut send) = connection.open_bidirectional_stream().await?.split();
        let sending = tokio::spawn(async move { send_all(&mut send, payload(n, bytes)).await });
        let receiving = tokio::spawn(async move { receive_all(&mut receive).await });
        tasks.push((sending, receiving));
    }
    let mut back = Vec::new();
    for (sending, receiving) in tasks {
        sending.await??;
        back.push(receiving.await??);
    }
    Ok(back)
}

async fn send_all(stream: &mut SendStream, data: Vec<u8>) -> Result<()> {
    stream.send(data.into()).await?;
    stream.finish()?;
    Ok(())
}

async fn receive_all(stream: &mut ReceiveStream) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    while let Some(chunk) = stream.receive().await? {
        received.extend_from_slice(&chunk);
    }
    Ok(received)
}

async fn echo_uni(
    connection: &mut s2n_quic::Connection,
    streams: usize,
    bytes: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut tasks = Vec::new();
    for n in 0..streams {
        let mut send = connection.open_send_stream().await?;
        tasks.push(tokio::spawn(async move {
            send_all(&mut send, payload(n, bytes)).await
        }));
    }
    let mut back = Vec::new();
    for _ in 0..streams {
        let stream = connection.accept_receive_stream().await?;
        let mut stream = stream.context("the connection was closed")?;
        back.push(receive_all(&mut stream).await?);
    }
    for task in tasks {
        task.await??;
    }
    Ok(back)
}

fn send_datagram(handle: &Handle, data: Bytes) -> Result<()> {
    let sent = handle.datagram_mut(|sender: &mut datagram::Sender| sender.send_datagram(data));
    sent.map_err(|e| anyhow!("{e}"))?
        .map_err(|e| anyhow!("{e}"))
}

async fn receive_datagram(handle: &Handle) -> Result<Bytes> {
    std::future::poll_fn(|cx| {
        let polled = handle
            .datagram_mut(|receiver: &mut datagram::Receiver| receiver.poll_recv_datagram(cx));
        match polled {
            Ok(polled) => polled.map_err(|e| anyhow!("{e}")),
            Err(error) => std::task::Poll::Ready(Err(anyhow!("{error}"))),
        }
    })
    .await
}

async fn datagram_and_back(handle: &Handle) -> Result<()> {
    let data = Bytes::from(payload(0, 700));
    loop {
        // They are unreliable: again after a while.
        send_datagram(handle, data.clone())?;
        if let Ok(back) = timeout(Duration::from_secs(1), receive_datagram(handle)).await {
            ensure!(back? == data, "another datagram came back");
            return Ok(());
        }
    }
}

/// The server across its restarts.
struct S2nServer {
    tls: Arc<rustls::ServerConfig>,
    retry: bool,
    socket: UdpSocket,
    facts: SharedFacts,
}

impl S2nServer {
    async fn run(self, mut orders: Orders) -> Result<()> {
        let mut life = Life::begin(&self)?;
        while let Some((order, answer)) = orders.recv().await {
            let result = match order {
                Order::Close { code, .. } => {
                    let handle = life.latest.borrow().clone();
                    handle
                        .map(|h| h.close(code.into()))
                        .context("no connection")
                }
                Order::Forget => {
                    drop(life);
                    life = Life::begin(&self)?;
                    Ok(())
                }
                Order::UpdateKeys => Err(anyhow!("it is not offered")),
            };
            // Who asked has gone, if this fails.
            let _ = answer.send(result);
        }
        Ok(())
    }
}

/// One endpoint in a thread and runtime of its own, so that it can die without a word.
struct Life {
    latest: watch::Receiver<Option<Handle>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Life {
    fn begin(server: &S2nServer) -> Result<Self> {
        let (tls, retry) = (server.tls.clone(), server.retry);
        let (socket, facts) = (server.socket.try_clone()?, server.facts.clone());
        let (tell, latest) = watch::channel(None);
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let result = runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    result = serve(tls, retry, socket, &facts, tell) => result,
                    _ = &mut stopped => Ok(()),
                }
            });
            if let Err(error) = result {
                note(&facts, |facts| facts.notes.push(format!("{error:#}")));
            }
        });
        Ok(Self {
            latest,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

async fn serve(
    tls: Arc<rustls::ServerConfig>,
    retry: bool,
    socket: UdpSocket,
    facts: &SharedFacts,
    tell: watch::Sender<Option<Handle>>,
) -> Result<()> {
    let io = Io::default().with_rx_socket(socket)?.build()?;
    let mut server = s2n_quic::Server::builder()
        .with_tls(tls::Server::from(tls))?
        .with_io(io)?
        .with_datagram(datagrams()?)?
        .with_endpoint_limits(Doorman { retry })?
        .with_stateless_reset_token(ResetTokens(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])))?
        .with_event(Observer(facts.clone()))?
        .start()
        .map_err(|e| anyhow!("{e}"))?;
    while let Some(connection) = server.accept().await {
        let handle = connection.handle();
        connected(&handle, facts)?;
        // Nobody asks any more, if this fails.
        let _ = tell.send(Some(handle));
        tokio::spawn(echo_all(connection, facts.clone()));
    }
    Ok(())
}

/// Echoes until the connection ends.
async fn echo_all(mut connection: s2n_quic::Connection, facts: SharedFacts) {
    let handle = connection.handle();
    let error = loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                Ok(Some(PeerStream::Bidirectional(stream))) => {
                    tokio::spawn(back(stream, facts.clone()));
                }
                Ok(Some(PeerStream::Receive(stream))) => {
                    tokio::spawn(answer(handle.clone(), stream, facts.clone()));
                }
                Ok(None) => return,
                Err(error) => break error,
            },
            data = receive_datagram(&handle) => {
                if let Ok(data) = data && send_datagram(&handle, data).is_ok() {
                    note(&facts, |facts| facts.datagrams += 1);
                }
            }
        }
    };
    note(&facts, |facts| facts.ends.push(end(&error)));
}

/// Sends a stream back on itself.
async fn back(stream: s2n_quic::stream::BidirectionalStream, facts: SharedFacts) -> Result<()> {
    let (mut receive, mut send) = stream.split();
    let mut total = 0;
    while let Some(chunk) = receive.receive().await? {
        total += chunk.len() as u64;
        send.send(chunk).await?;
    }
    send.finish()?;
    note(&facts, |facts| {
        facts.streams += 1;
        facts.bytes += total;
    });
    Ok(())
}

/// Sends a stream back on one of the server's own.
async fn answer(mut handle: Handle, mut receive: ReceiveStream, facts: SharedFacts) -> Result<()> {
    let data = receive_all(&mut receive).await?;
    let total = data.len() as u64;
    send_all(&mut handle.open_send_stream().await?, data).await?;
    note(&facts, |facts| {
        facts.streams += 1;
        facts.bytes += total;
    });
    Ok(())
}

/// Asks newcomers for a Retry, or lets them in.
struct Doorman {
    retry: bool,
}

impl Limiter for Doorman {
    fn on_connection_attempt(&mut self, _: &ConnectionAttempt<'_>) -> Outcome {
        match self.retry {
            true => Outcome::retry(),
            false => Outcome::allow(),
        }
    }
}

/// Tokens that a restart keeps.
struct ResetTokens(hmac::Key);

impl Generator for ResetTokens {
    const ENABLED: bool = true;

    fn generate(&mut self, id: &[u8]) -> s2n_quic_core::stateless_reset::Token {
        let mac = hmac::sign(&self.0, id);
        let token: [u8; 16] = mac.as_ref()[..16].try_into().expect("32 bytes");
        token.into()
    }
}

impl stateless_reset_token::Provider for ResetTokens {
    type Generator = Self;
    type Error = std::convert::Infallible;

    fn start(self) -> Result<Self, Self::Error> {
        Ok(self)
    }
}

/// Notes what the library's events tell.
struct Observer(SharedFacts);

impl Subscriber for Observer {
    type ConnectionContext = ();

    fn create_connection_context(
        &mut self,
        _: &ConnectionMeta,
        _: &s2n_quic::provider::event::ConnectionInfo<'_>,
    ) {
    }

    fn on_active_path_updated(
        &mut self,
        (): &mut (),
        _: &ConnectionMeta,
        event: &events::ActivePathUpdated<'_>,
    ) {
        let remote = event.active.remote_addr.to_string();
        note(&self.0, |facts| match remote.parse::<SocketAddr>() {
            Ok(remote) => facts.saw(remote),
            Err(_) => facts.notes.push(format!("active path {remote}")),
        });
    }

    fn on_key_update(&mut self, (): &mut (), _: &ConnectionMeta, event: &events::KeyUpdate) {
        note(&self.0, |facts| {
            facts.notes.push(format!("{:?}", event.key_type))
        });
    }
}
