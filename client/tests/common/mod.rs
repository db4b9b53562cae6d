//! A server for tests: the real protocol over real QUIC, with everything in memory and knobs to make
//! trouble. Rules that only a durable server can break are not its business.

mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use roadstead_client::{Client, Config, Event, Events, Trust, UserId};
use roadstead_proto::{ALPN, Deframer, ErrorCode, decode_frame, encode_frame, v1};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::sync::mpsc;

pub(crate) use world::{Out, World};

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    endpoint: quinn::Endpoint,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a key");
        std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).expect("writes");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .expect("a certificate");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).expect("QUIC");
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let any_port = "127.0.0.1:0".parse().expect("an address");
        let endpoint = quinn::Endpoint::server(config, any_port).expect("binds");
        let address = endpoint.local_addr().expect("bound");
        let world = Arc::new(Mutex::new(World::default()));
        tokio::spawn(accept(endpoint.clone(), Arc::clone(&world)));
        Self {
            world,
            address,
            folder,
            endpoint,
        }
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// A configuration for a user of this server that does not dawdle.
    pub(crate) fn config(&self, user: u64) -> Config {
        let trust = Trust::pinned_file(self.certificate()).expect("written at the start");
        Config::new(self.address.to_string(), trust)
            .token(format!("user:{user}"))
            .reconnect_delay(Duration::from_millis(10), Duration::from_millis(50))
    }

    pub(crate) async fn client(&self, user: u64) -> (Client, Events) {
        Client::connect(self.config(user)).await.expect("starts")
    }

    pub(crate) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("not poisoned")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.endpoint.close(0u32.into(), b"");
    }
}

async fn accept(endpoint: quinn::Endpoint, world: Arc<Mutex<World>>) {
    while let Some(incoming) = endpoint.accept().await {
        let first_id = Bytes::copy_from_slice(&incoming.orig_dst_cid());
        world.lock().expect("not poisoned").first_ids.push(first_id);
        tokio::spawn(serve(incoming, Arc::clone(&world)));
    }
}

async fn serve(incoming: quinn::Incoming, world: Arc<Mutex<World>>) -> Option<()> {
    let connection = incoming.await.ok()?;
    let (mut send, mut recv) = connection.accept_bi().await.ok()?;
    let (out, mut to_send) = mpsc::unbounded_channel();
    let reader = async {
        let mut deframer = Deframer::new(64 * 1024);
        let mut session = None;
        while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await {
            let mut bytes = chunk.bytes;
            while let Some(frame) = deframer.next_frame(&mut bytes).expect("the SDK's frames") {
                let frame: v1::ClientFrame = decode_frame(frame).expect("the SDK's frames");
                let body = frame.body.expect("the SDK's frames have one");
                world
                    .lock()
                    .expect("not poisoned")
                    .handle(&mut session, body, &out);
            }
        }
        // The client has finished its stream: let it see that everything arrived.
        std::future::pending::<()>().await;
    };
    let writer = async {
        while let Some(out) = to_send.recv().await {
            match out {
                Out::Frame(body) => {
                    let mut bytes = Vec::new();
                    encode_frame(&v1::ServerFrame { body: Some(*body) }, &mut bytes);
                    if send.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Out::Garbage(bytes) => drop(send.write_all(&bytes).await),
                Out::Close(code) => return connection.close(code.as_close_code().into(), b""),
            }
        }
    };
    tokio::select! {
        () = reader => {}
        () = writer => {}
        _ = connection.closed() => {}
    }
    Some(())
}

/// The next event that `pick` wants; others are passed over.
pub(crate) async fn wait_for<T>(
    events: &mut Events,
    mut pick: impl FnMut(&Event) -> Option<T>,
) -> T {
    let found = async {
        loop {
            let event = events.next().await.expect("the client runs");
            if let Some(found) = pick(&event) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("the event comes")
}

pub(crate) async fn next_message(events: &mut Events) -> roadstead_client::Message {
    wait_for(events, |event| match event {
        Event::Message(message) => Some(message.clone()),
        _ => None,
    })
    .await
}

/// Waits until the server's state is as it should be. Looks again whenever a frame was handled.
pub(crate) async fn until(server: &Server, mut holds: impl FnMut(&World) -> bool) {
    let changed = Arc::clone(&server.world().changed);
    let waiting = async {
        loop {
            let notified = changed.notified();
            if holds(&server.world()) {
                return;
            }
            notified.await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the server gets there");
}

pub(crate) fn user(id: u64) -> UserId {
    UserId::new(id).expect("not 0")
}

pub(crate) fn pair(a: u64, b: u64) -> roadstead_client::ChatId {
    roadstead_client::ChatId::pair(user(a), user(b))
}

pub(crate) fn is_code(event: &Event, code: ErrorCode) -> bool {
    use roadstead_client::Cause;
    matches!(event, Event::Disconnected(it) if it.cause == Cause::Closed(code))
}
