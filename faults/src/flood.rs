//! First packets of connections that are never finished: half-open handshakes (T11).

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};

/// Connections begun by one endpoint before it is replaced: it remembers each.
const PER_ENDPOINT: u32 = 500;

/// A flood under way. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Begins so many handshakes per second.
    pub(crate) fn start(target: SocketAddr, per_second: u32) -> Result<Self> {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let config = config()?;
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let pause = Duration::from_secs(1) / per_second.max(1);
        let thread = std::thread::Builder::new()
            .name("flood".into())
            .spawn(move || {
                let mut due = Instant::now();
                while !stopped.load(Ordering::Relaxed) {
                    let mut endpoint =
                        Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
                    for _ in 0..PER_ENDPOINT {
                        if stopped.load(Ordering::Relaxed) {
                            return;
                        }
                        first_packet(&mut endpoint, &config, &socket, target);
                        count.fetch_add(1, Ordering::Relaxed);
                        due += pause;
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                }
            })?;
        Ok(Self {
            stop,
            sent,
            thread: Some(thread),
        })
    }

    /// Handshakes begun.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Nothing is verified because nothing is ever answered to.
fn config() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![roadstead_proto::ALPN.to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(
        tls,
    )?)))
}

fn first_packet(
    endpoint: &mut Endpoint,
    config: &ClientConfig,
    socket: &UdpSocket,
    target: SocketAddr,
) {
    let now = Instant::now();
    let Ok((_, mut connection)) = endpoint.connect(now, config.clone(), target, "localhost") else {
        return;
    };
    let mut packet = Vec::new();
    if let Some(transmit) = connection.poll_transmit(now, 1, &mut packet) {
        // What the kernel has no room for is lost, as in any flood.
        let _ = socket.send_to(&packet[..transmit.size], target);
    }
}
