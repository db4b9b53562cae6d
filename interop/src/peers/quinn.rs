//! quinn, as its users use it: with tokio, real sockets, and whatever its defaults are.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::hmac;
use bytes::Bytes;
use quinn::{
    ConnectionError, EndpointConfig, RecvStream, SendStream, TokioRuntime, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Implementation, locked_version,
    tickets::{self, Tickets},
    tokio_peer::{Orders, SharedFacts, Steps, TokioClient, TokioServer, compare, note},
};
use crate::{
    identity::Identity,
    script::{
        Client, ClientOptions, End, Order, SERVER_NAME, Server, ServerOptions, Step, payload,
    },
    udp,
};

/// A draft version: quinn still has its keys, Roadstead does not know it.
const DRAFT_29: u32 = 0xff00_001d;

/// quinn.
#[derive(Debug)]
pub(super) struct Quinn;

impl Implementation for Quinn {
    fn name(&self) -> &'static str {
        "quinn"
    }

    fn version(&self) -> String {
        locked_version("quinn")
    }

    fn serve(&self, identity: &Identity, options: &ServerOptions) -> Result<Box<dyn Server>> {
        let tls = QuicServerConfig::try_from(tickets::server(identity)?)?;
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let options = options.clone();
        let server = TokioServer::start(async move |socket, facts, orders| {
            QuinnServer::new(config, &options, socket, facts)?
                .run(orders)
                .await
        })?;
        Ok(Box::new(server))
    }

    fn client(&self, identity: &Identity, options: &ClientOptions) -> Result<Box<dyn Client>> {
        let (tls, tickets) = tickets::client(identity)?;
        let tls = QuicClientConfig::try_from(tls)?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        if options.foreign_version {
            config.version(DRAFT_29);
        }
        let make = |facts| {
            let (defaults, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
            Ok(QuinnClient {
                endpoint: quinn::Endpoint::new(defaults, None, udp::bind()?, runtime)?,
                config,
                tickets,
                connection: None,
                facts,
            })
        };
        Ok(Box::new(TokioClient::new(make)?))
    }
}

fn end(error: &ConnectionError) -> End {
    match error {
        ConnectionError::ApplicationClosed(close) => End::Application {
            code: close.error_code.into_inner(),
            reason: Some(String::from_utf8_lossy(&close.reason).into_owned()),
        },
        ConnectionError::Reset => End::Reset,
        ConnectionError::VersionMismatch => End::Version,
        ConnectionError::LocallyClosed => End::Here,
        other => End::Other(other.to_string()),
    }
}

fn connected(connection: &quinn::Connection, facts: &SharedFacts) {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    let alpn = data.and_then(|data| data.protocol).unwrap_or_default();
    note(facts, |facts| {
        facts.connected += 1;
        facts.alpn = String::from_utf8_lossy(&alpn).into_owned();
        facts.saw(connection.remote_address());
    });
}

struct QuinnClient {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    tickets: Arc<Tickets>,
    connection: Option<quinn::Connection>,
    facts: SharedFacts,
}

impl QuinnClient {
    async fn connect(&self, to: SocketAddr) -> Result<quinn::Connection, ConnectionError> {
        let config = self.config.clone();
        let connecting = self.endpoint.connect_with(config, to, SERVER_NAME);
        connecting.expect("a valid configuration").await
    }

    fn connection(&self) -> Result<quinn::Connection> {
        self.connection.clone().context("not connected")
    }
}

impl Steps for QuinnClient {
    async fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Connect { to } => {
                let connection = self.connect(*to).await?;
                connected(&connection, &self.facts);
                self.connection = Some(connection);
            }
            Step::ConnectInVain { to } => match self.connect(*to).await {
                Ok(_) => bail!("it connected"),
                Err(error) => note(&self.facts, |facts| facts.ends.push(end(&error))),
            },
            Step::Echo { streams, bytes } => {
                let back = echo(&self.connection()?, *streams, *bytes).await?;
                compare(&self.facts, *streams, *bytes, &back)?;
            }
            Step::EchoUni { streams, bytes } => {
                let back = echo_uni(&self.connection()?, *streams, *bytes).await?;
                compare(&self.facts, *streams, *bytes, &back)?;
            }
            Step::Datagram => {
                datagram(&self.connection()?).await?;
                note(&self.facts, |facts| facts.datagrams += 1);
            }
            Step::AwaitTicket => self.tickets.wait().await,
            Step::UpdateKeys => self.connection()?.force_key_update(),
            Step::Migrate => self.endpoint.rebind(udp::bind()?)?,
            Step::Close { code, reason } => {
                let connection = self.connection()?;
                connection.close(VarInt::from_u32(*code), reason.as_bytes());
                note(&self.facts, |facts| facts.ends.push(End::Here));
                self.endpoint.wait_idle().await;
            }
            Step::AwaitEnd => {
                let connection = self.connection()?;
                // A peer without state answers only to packets. If it is over, nothing is sent.
                let _ = connection.send_datagram(Bytes::from_static(b"anybody there?"));
                let error = connection.closed().await;
                note(&self.facts, |facts| facts.ends.push(end(&error)));
            }
        }
        Ok(())
    }
}

async fn echo(conn: &quinn::Connection, streams: usize, bytes: usize) -> Result<Vec<Vec<u8>>> {
    let mut tasks = Vec::new();
    for n in 0..streams {
        let (mut send, mut receive) = conn.open_bi().await?;
        let sending = tokio::spawn(async move {
            send.write_all(&payload(n, bytes)).await?;
            send.finish()?;
            anyhow::Ok(())
        });
        let receiving = tokio::spawn(async move { anyhow::Ok(receive.read_to_end(bytes).await?) });
        tasks.push((sending, receiving));
    }
    let mut back = Vec::new();
    for (sending, receiving) in tasks {
        sending.await??;
        back.push(receiving.await??);
    }
    Ok(back)
}

async fn echo_uni(conn: &quinn::Connection, streams: usize, bytes: usize) -> Result<Vec<Vec<u8>>> {
    let mut tasks = Vec::new();
    for n in 0..streams {
        let mut send = conn.open_uni().await?;
        tasks.push(tokio::spawn(async move {
            send.write_all(&payload(n, bytes)).await?;
            send.finish()?;
            anyhow::Ok(())
        }));
    }
    let mut back = Vec::new();
    for _ in 0..streams {
        let mut receive = conn.accept_uni().await?;
        back.push(receive.read_to_end(bytes).await?);
    }
    for task in tasks {
        task.await??;
    }
    Ok(back)
}

async fn datagram(connection: &quinn::Connection) -> Result<()> {
    let data = Bytes::from(payload(0, 700));
    loop {
        // They are unreliable: again after a while.
        connection.send_datagram(data.clone())?;
        if let Ok(back) = timeout(Duration::from_secs(1), connection.read_datagram()).await {
            ensure!(back? == data, "another datagram came back");
            return Ok(());
        }
    }
}

/// The echoing server.
struct QuinnServer {
    config: quinn::ServerConfig,
    endpoint_config: EndpointConfig,
    socket: UdpSocket,
    endpoint: quinn::Endpoint,
    retry: bool,
    facts: SharedFacts,
    /// The latest connection.
    connection: Option<quinn::Connection>,
}

impl QuinnServer {
    fn new(
        config: quinn::ServerConfig,
        options: &ServerOptions,
        socket: UdpSocket,
        facts: SharedFacts,
    ) -> Result<Self> {
        // Keys that a restart keeps: without them there is no reset that a client would believe.
        let reset_key = [7; 64];
        let key = hmac::Key::new(hmac::HMAC_SHA256, &reset_key);
        let mut endpoint_config = EndpointConfig::new(Arc::new(key));
        endpoint_config.cid_generator(|| Box::new(HashedConnectionIdGenerator::from_key(7)));
        if options.foreign_version {
            endpoint_config.supported_versions(vec![DRAFT_29]);
        }
        let endpoint = quinn::Endpoint::new(
            endpoint_config.clone(),
            Some(config.clone()),
            socket.try_clone()?,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self {
            config,
            endpoint_config,
            socket,
            endpoint,
            retry: options.retry,
            facts,
            connection: None,
        })
    }

    async fn run(mut self, mut orders: Orders) -> Result<()> {
        let (opened, mut connections) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { return Ok(()) };
                    if self.retry && !incoming.remote_address_validated() {
                        incoming.retry()?;
                        continue;
                    }
                    let (facts, opened) = (self.facts.clone(), opened.clone());
                    tokio::spawn(async move {
                        let connection = match incoming.await {
                            Ok(connection) => connection,
                            Err(error) => return note(&facts, |f| f.ends.push(end(&error))),
                        };
                        connected(&connection, &facts);
                        // The server has stopped, if this fails.
                        let _ = opened.send(connection.clone());
                        serve(connection, facts).await;
                    });
                }
                Some(connection) = connections.recv() => self.connection = Some(connection),
                order = orders.recv() => {
                    let Some((order, answer)) = order else { return Ok(()) };
                    // Who asked has gone, if this fails.
                    let _ = answer.send(self.obey(&order));
                }
            }
        }
    }

    fn obey(&mut self, order: &Order) -> Result<()> {
        let connection = self.connection.as_ref().context("no connection")?;
        match order {
            Order::UpdateKeys => connection.force_key_update(),
            Order::Close { code, reason } => {
                connection.close(VarInt::from_u32(*code), reason.as_bytes());
            }
            Order::Forget => {
                // What the old endpoint still says leaves from where nobody listens.
                self.endpoint.rebind(udp::bind()?)?;
                self.endpoint = quinn::Endpoint::new(
                    self.endpoint_config.clone(),
                    Some(self.config.clone()),
                    self.socket.try_clone()?,
                    Arc::new(TokioRuntime),
                )?;
            }
        }
        Ok(())
    }
}

/// Echoes until the connection ends.
async fn serve(connection: quinn::Connection, facts: SharedFacts) {
    let error = loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, receive)) => { tokio::spawn(back(send, receive, facts.clone())); }
                Err(error) => break error,
            },
            stream = connection.accept_uni() => match stream {
                Ok(receive) => { tokio::spawn(answer(connection.clone(), receive, facts.clone())); }
                Err(error) => break error,
            },
            data = connection.read_datagram() => match data {
                Ok(data) => if connection.send_datagram(data).is_ok() {
                    note(&facts, |facts| facts.datagrams += 1);
                },
                Err(error) => break error,
            },
        }
        note(&facts, |facts| facts.saw(connection.remote_address()));
    };
    note(&facts, |facts| {
        facts.saw(connection.remote_address());
        facts.ends.push(end(&error));
    });
}

/// Sends a stream back on itself.
async fn back(mut send: SendStream, mut receive: RecvStream, facts: SharedFacts) -> Result<()> {
    let mut total = 0;
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
        total += chunk.bytes.len() as u64;
        send.write_chunk(chunk.bytes).await?;
    }
    send.finish()?;
    note(&facts, |facts| {
        facts.streams += 1;
        facts.bytes += total;
    });
    Ok(())
}

/// Sends a stream back on one of the server's own.
async fn answer(
    conn: quinn::Connection,
    mut receive: RecvStream,
    facts: SharedFacts,
) -> Result<()> {
    let data = receive.read_to_end(1 << 20).await?;
    let mut send = conn.open_uni().await?;
    send.write_all(&data).await?;
    send.finish()?;
    note(&facts, |facts| {
        facts.streams += 1;
        facts.bytes += data.len() as u64;
    });
    Ok(())
}
