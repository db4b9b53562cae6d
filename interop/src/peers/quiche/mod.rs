//! quiche, a sans-IO library: the same node serves the sockets of the matrix and the simulated network.

mod node;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use quiche::Config;
use roadstead_quic::Time;

pub use node::QuicheNode;

use super::{Implementation, locked_version};
use crate::{
    common::net::{Dice, Node, Note},
    identity::Identity,
    sansio::{NodeClient, NodeServer, Peer},
    scenario::Feature,
    script::{ALPN, Client, ClientOptions, End, Facts, Role, Server, ServerOptions},
};

/// A reserved version (RFC 9000 15): it forces a negotiation.
const RESERVED: u32 = 0xbaba_baba;

/// quiche.
#[derive(Debug)]
pub(super) struct Quiche;

/// What both roles are configured with.
pub fn config(version: u32) -> quiche::Result<Config> {
    let mut config = Config::new(version)?;
    config.set_application_protos(&[ALPN.as_bytes()])?;
    config.set_max_idle_timeout(60_000);
    config.set_initial_max_data(1 << 20);
    config.set_initial_max_stream_data_bidi_local(256 << 10);
    config.set_initial_max_stream_data_bidi_remote(256 << 10);
    config.set_initial_max_stream_data_uni(256 << 10);
    config.set_initial_max_streams_bidi(16);
    config.set_initial_max_streams_uni(16);
    config.set_active_connection_id_limit(4);
    config.enable_dgram(true, 16, 16);
    Ok(config)
}

/// A server's configuration with the identity.
pub fn server_config(identity: &Identity) -> Result<Config> {
    let mut config = config(quiche::PROTOCOL_VERSION)?;
    let path = |path: std::path::PathBuf| path.into_os_string().into_string();
    let chain = path(identity.chain_path())
        .ok()
        .context("a path in UTF-8")?;
    let key = path(identity.key_path()).ok().context("a path in UTF-8")?;
    config.load_cert_chain_from_pem_file(&chain)?;
    config.load_priv_key_from_pem_file(&key)?;
    Ok(config)
}

/// A client's configuration that trusts the identity.
pub fn client_config(identity: &Identity, version: u32) -> Result<Config> {
    let mut config = config(version)?;
    let chain = identity.chain_path().into_os_string().into_string();
    config.load_verify_locations_from_file(&chain.ok().context("a path in UTF-8")?)?;
    config.verify_peer(true);
    Ok(config)
}

impl Implementation for Quiche {
    fn name(&self) -> &'static str {
        "quiche"
    }

    fn version(&self) -> String {
        locked_version("quiche")
    }

    fn lacks(&self, feature: Feature, role: Role) -> Option<&'static str> {
        match (feature, role) {
            (Feature::KeyUpdateByPeer, _) => Some("it has no call that begins a key update"),
            (Feature::VersionNegotiation, Role::Server) => {
                Some("its Version Negotiation always lists v1, which a client of v1 must ignore")
            }
            (Feature::StatelessReset, Role::Server) => {
                Some("it leaves the sending of stateless resets to the application")
            }
            _ => None,
        }
    }

    fn recovers_from_negotiation(&self) -> bool {
        true
    }

    fn serve(&self, identity: &Identity, options: &ServerOptions) -> Result<Box<dyn Server>> {
        let config = server_config(identity)?;
        let retry = options.retry;
        let make = move |address| {
            let mut node = QuicheNode::server(config, address, random());
            node.retry = retry;
            Quic::new(node)
        };
        Ok(Box::new(NodeServer::start(make)?))
    }

    fn client(&self, identity: &Identity, options: &ClientOptions) -> Result<Box<dyn Client>> {
        let version = match options.foreign_version {
            true => RESERVED,
            false => quiche::PROTOCOL_VERSION,
        };
        let config = client_config(identity, version)?;
        let make = |address| Quic::new(QuicheNode::client(config, address, random()));
        Ok(Box::new(NodeClient::new(make)?))
    }
}

fn random() -> Dice {
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).expect("the random source works");
    Dice(u64::from_le_bytes(seed))
}

/// A node over real sockets.
struct Quic {
    node: QuicheNode,
    /// Of which connection the next two tell.
    generation: u32,
    counted: bool,
    ended: bool,
    session: Option<Vec<u8>>,
}

impl Quic {
    fn new(node: QuicheNode) -> Self {
        Self {
            node,
            generation: 0,
            counted: false,
            ended: false,
            session: None,
        }
    }
}

impl Peer for Quic {
    type Node = QuicheNode;

    fn node(&mut self) -> &mut QuicheNode {
        &mut self.node
    }

    fn connect(&mut self, now: Time, to: SocketAddr) -> Result<()> {
        self.node.connect(now, to)?;
        if let (Some(session), Some(conn)) = (&self.session, &mut self.node.conn) {
            conn.set_session(session)?;
        }
        Ok(())
    }

    fn migrate(&mut self, _: Time, to: SocketAddr) -> Result<()> {
        let conn = self.node.conn.as_mut().context("not connected")?;
        conn.migrate_source(to)?;
        Ok(())
    }

    fn close_with(&mut self, _: Time, code: u32, reason: &str) {
        if let Some(conn) = &mut self.node.conn {
            // It is over already, if this fails.
            let _ = conn.close(true, code.into(), reason.as_bytes());
        }
    }

    fn forget(&mut self, _: Time) -> Result<()> {
        self.node.conn = None;
        Ok(())
    }

    fn observe(&mut self, facts: &mut Facts) {
        let Some(conn) = &self.node.conn else { return };
        if self.generation != self.node.generation {
            self.generation = self.node.generation;
            (self.counted, self.ended) = (false, false);
        }
        if conn.is_established() && !self.counted {
            self.counted = true;
            facts.connected += 1;
            facts.alpn = String::from_utf8_lossy(conn.application_proto()).into_owned();
            facts.resumed.push(conn.is_resumed());
        }
        if let Some(session) = conn.session() {
            self.session = Some(session.to_vec());
        }
        if let Some(path) = conn.path_stats().find(|path| path.active) {
            facts.saw(path.peer_addr);
        }
        if let Some(end) = end(conn).filter(|_| !self.ended) {
            self.ended = true;
            facts.ends.push(end);
        }
    }

    fn has_ticket(&self, _: &[Note]) -> bool {
        self.session.is_some()
    }

    fn poke(&mut self, now: Time) {
        if self
            .node
            .conn
            .as_ref()
            .is_some_and(quiche::Connection::is_established)
        {
            self.node.ping(now);
        }
    }

    fn release(&mut self) {}
}

/// How a connection ended, if it did.
fn end(conn: &quiche::Connection) -> Option<End> {
    if let Some(error) = conn.peer_error() {
        let reason = String::from_utf8_lossy(&error.reason).into_owned();
        return Some(match error.is_app {
            true => End::Application {
                code: error.error_code,
                reason: Some(reason),
            },
            false => End::Other(format!("error {:#x} {reason}", error.error_code)),
        });
    }
    if let Some(error) = conn.local_error() {
        return Some(match error.is_app {
            true => End::Here,
            false => End::Other(format!("error {:#x} found here", error.error_code)),
        });
    }
    if !conn.is_closed() {
        return None;
    }
    // quiche has no word for a reset: it is the one way to be closed without an error or a timeout.
    Some(match conn.is_timed_out() {
        true => End::Other("timeout".into()),
        false => End::Reset,
    })
}
