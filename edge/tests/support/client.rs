//! A client of the protocol without manners: it can send any bytes at any time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::crypto;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, RecvStream, SendStream};
use roadstead_proto::v1::{self, client_frame, hello, server_frame};
use roadstead_proto::{ChatId, Deframer, ErrorCode, UserId, decode_frame, encode_frame};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::bold::Bold;
use super::{Edge, soon};

/// One connection with its stream.
pub(crate) struct Client {
    endpoint: Endpoint,
    pub(crate) connection: quinn::Connection,
    send: SendStream,
    receive: RecvStream,
    deframer: Deframer,
    chunk: Bytes,
    next_number: u64,
}

/// What a test waits for.
pub(crate) type Expect = server_frame::Body;

/// The chat of two users, as the wire has it.
pub(crate) fn chat(a: u64, b: u64) -> Bytes {
    let user = |id| UserId::new(id).expect("not 0");
    Bytes::copy_from_slice(ChatId::pair(user(a), user(b)).as_bytes())
}

impl Client {
    /// Connects without a Hello.
    pub(crate) async fn connect(edge: &Edge) -> Self {
        Self::try_connect(edge, roadstead_proto::ALPN)
            .await
            .expect("a connection")
    }

    /// Begins a handshake and gives it up: the server's certificate is for another name.
    pub(crate) async fn begin_and_give_up(edge: &Edge) {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let config = client_config(tls(edge, roadstead_proto::ALPN));
        let connecting = endpoint
            .connect_with(config, edge.listen, "another.example")
            .expect("a valid configuration");
        assert!(connecting.await.is_err(), "it does not trust the server");
    }

    /// Connects with a protocol name of the test's choice.
    pub(crate) async fn try_connect(edge: &Edge, alpn: &[u8]) -> Result<Self, ConnectionError> {
        Self::connect_with(edge, client_config(tls(edge, alpn))).await
    }

    /// Connects and sends DATAGRAM frames although the server announces none.
    pub(crate) async fn connect_boldly(edge: &Edge) -> Self {
        let bold = Arc::new(Bold(tls(edge, roadstead_proto::ALPN)));
        let connected = Self::connect_with(edge, client_config(bold)).await;
        connected.expect("a connection")
    }

    async fn connect_with(
        edge: &Edge,
        config: quinn::ClientConfig,
    ) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let connecting = endpoint
            .connect_with(config, edge.listen, "localhost")
            .expect("a valid configuration");
        let connection = soon("the handshake", connecting).await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Self {
            endpoint,
            connection,
            send,
            receive,
            deframer: Deframer::new(1 << 20),
            chunk: Bytes::new(),
            next_number: 1,
        })
    }

    /// From here on its packets come from another port, as after a change of network.
    pub(crate) fn move_to_another_socket(&self) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        self.endpoint.rebind(socket).expect("it takes the socket");
    }

    /// A session of a user's device, past its Welcome.
    pub(crate) async fn login(edge: &Edge, user: u64, device: u32) -> Self {
        Self::resume(edge, user, device, 1, Bytes::new()).await.0
    }

    /// A session that continues after a cursor.
    pub(crate) async fn resume(
        edge: &Edge,
        user: u64,
        device: u32,
        connect_counter: u64,
        cursor: Bytes,
    ) -> (Self, v1::Welcome) {
        let mut client = Self::connect(edge).await;
        let mut hello = Self::hello(edge, user, device);
        hello.connect_counter = connect_counter;
        hello.cursor = cursor;
        client.say(client_frame::Body::Hello(hello)).await;
        match client.next().await {
            Expect::Welcome(welcome) => (client, welcome),
            other => panic!("{other:?} instead of a Welcome"),
        }
    }

    /// A valid Hello.
    pub(crate) fn hello(edge: &Edge, user: u64, device: u32) -> v1::Hello {
        v1::Hello {
            version: roadstead_proto::VERSION,
            device,
            connect_counter: 1,
            credential: Some(hello::Credential::Token(edge.token(user))),
            ..v1::Hello::default()
        }
    }

    /// Sends a frame.
    pub(crate) async fn say(&mut self, body: client_frame::Body) {
        let mut bytes = BytesMut::new();
        encode_frame(&v1::ClientFrame { body: Some(body) }, &mut bytes);
        self.say_bytes(&bytes).await;
    }

    /// Sends any bytes. A server that has closed already is no error here.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    /// Asks the server to send nothing more on the stream (STOP_SENDING).
    pub(crate) fn stop_listening(&mut self) {
        self.receive.stop(7u32.into()).expect("it listened");
    }

    /// Gives up what it sends on the stream (RESET_STREAM).
    pub(crate) fn give_up_sending(&mut self) {
        self.send.reset(7u32.into()).expect("it sent");
    }

    /// Ends what it sends on the stream.
    pub(crate) fn finish_sending(&mut self) {
        self.send.finish().expect("it sent");
    }

    /// Sends a message and returns its number.
    pub(crate) async fn message(&mut self, chat: Bytes, payload: &[u8]) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.message_numbered(number, chat, payload).await;
        number
    }

    pub(crate) async fn message_numbered(&mut self, number: u64, chat: Bytes, payload: &[u8]) {
        let payload = Bytes::copy_from_slice(payload);
        let send = v1::Send {
            number,
            chat,
            payload,
            ..v1::Send::default()
        };
        self.say(client_frame::Body::Send(send)).await;
    }

    /// Says that the refusal of that number of the chat is known (R16).
    pub(crate) async fn message_after(&mut self, after: u64, chat: Bytes, payload: &[u8]) {
        let number = self.next_number;
        self.next_number += 1;
        let send = v1::Send {
            number,
            chat,
            payload: Bytes::copy_from_slice(payload),
            after,
            ..v1::Send::default()
        };
        self.say(client_frame::Body::Send(send)).await;
    }

    pub(crate) async fn ack(&mut self, cursor: Bytes) {
        self.say(client_frame::Body::Ack(v1::Ack { cursor })).await;
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Expect {
        soon("a frame", self.try_next())
            .await
            .expect("the session is open")
    }

    /// The next frame, or why the connection ended.
    pub(crate) async fn try_next(&mut self) -> Result<Expect, ConnectionError> {
        loop {
            if let Some(frame) = self
                .deframer
                .next_frame(&mut self.chunk)
                .expect("valid frames")
            {
                let frame: v1::ServerFrame = decode_frame(frame).expect("a valid message");
                return Ok(frame.body.expect("a body"));
            }
            match self.receive.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => self.chunk = chunk.bytes,
                _ => return Err(self.connection.closed().await),
            }
        }
    }

    /// The next frame that this picks, skipping others.
    pub(crate) async fn wait_for<T>(
        &mut self,
        what: &str,
        pick: impl Fn(Expect) -> Option<T>,
    ) -> T {
        let found = async {
            loop {
                let frame = self.try_next().await.expect("the session is open");
                if let Some(found) = pick(frame) {
                    return found;
                }
            }
        };
        soon(what, found).await
    }

    pub(crate) async fn result(&mut self) -> v1::SendResult {
        let pick = |frame| {
            if let Expect::SendResult(it) = frame {
                Some(it)
            } else {
                None
            }
        };
        self.wait_for("a SendResult", pick).await
    }

    pub(crate) async fn deliver(&mut self) -> v1::Deliver {
        let pick = |frame| {
            if let Expect::Deliver(it) = frame {
                Some(it)
            } else {
                None
            }
        };
        self.wait_for("a Deliver", pick).await
    }

    pub(crate) async fn receipt(&mut self) -> v1::ReceiptUpdate {
        let pick = |frame| {
            if let Expect::ReceiptUpdate(it) = frame {
                Some(it)
            } else {
                None
            }
        };
        self.wait_for("a ReceiptUpdate", pick).await
    }

    pub(crate) async fn error(&mut self) -> v1::Error {
        let pick = |frame| {
            if let Expect::Error(it) = frame {
                Some(it)
            } else {
                None
            }
        };
        self.wait_for("an Error", pick).await
    }

    /// Reads on until the server closes, and returns the code.
    pub(crate) async fn closed(&mut self) -> Option<ErrorCode> {
        let end = async {
            loop {
                if let Err(error) = self.try_next().await {
                    return error;
                }
            }
        };
        match soon("the end of the connection", end).await {
            ConnectionError::ApplicationClosed(close) => {
                ErrorCode::from_close_code(close.error_code.into_inner())
            }
            other => panic!("the connection ended by {other}"),
        }
    }

    /// Ends the connection as a client does that goes away.
    pub(crate) async fn leave(self) {
        self.connection.close(0u32.into(), b"");
        soon("the last packet", self.endpoint.wait_idle()).await;
    }
}

/// TLS that trusts the edge's certificate.
fn tls(edge: &Edge, alpn: &[u8]) -> Arc<dyn crypto::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(edge.data.join("cert.pem")).expect("the edge made it");
    roots
        .add(CertificateDer::from_pem_slice(&pem).expect("a certificate"))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(QuicClientConfig::try_from(tls).expect("an initial cipher suite"))
}

fn client_config(tls: Arc<dyn crypto::ClientConfig>) -> quinn::ClientConfig {
    // A test may be silent for longer than quinn's idle time-out of 30 s.
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(std::time::Duration::from_secs(10)));
    let mut config = quinn::ClientConfig::new(tls);
    config.transport_config(Arc::new(transport));
    config
}

/// The datagrams that a client sends before it has heard anything.
pub(crate) fn first_flight(edge: &Edge) -> Vec<Vec<u8>> {
    let config = client_config(tls(edge, roadstead_proto::ALPN));
    let endpoint_config = Arc::new(quinn_proto::EndpointConfig::default());
    let mut endpoint = quinn_proto::Endpoint::new(endpoint_config, None, true, None);
    let now = std::time::Instant::now();
    let (_, mut connection) = endpoint
        .connect(now, config, edge.listen, "localhost")
        .expect("a valid configuration");
    let mut datagrams = Vec::new();
    let mut buffer = Vec::new();
    while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
        datagrams.push(buffer[..transmit.size].to_vec());
        buffer.clear();
    }
    datagrams
}
