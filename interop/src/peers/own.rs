//! Roadstead's engine, with rustls and aws-lc-rs as net/ puts them behind its seams.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use roadstead_net::{
    quic::lean::{AwsLc, RustlsTls},
    tls::{ClientTls, ServerTls, TicketKeys},
};
use roadstead_quic::{CidFormat, CloseReason, Config, Time};

use super::Implementation;
use crate::{
    common::{
        net::Note,
        own::{Own, config, steered},
    },
    identity::Identity,
    sansio::{NodeClient, NodeServer, Peer},
    script::{ALPN, Client, ClientOptions, End, Facts, Server, ServerOptions},
};

/// Roadstead's engine.
#[derive(Debug)]
pub struct Roadstead;

impl Implementation for Roadstead {
    fn name(&self) -> &'static str {
        "Roadstead"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn serve(&self, identity: &Identity, options: &ServerOptions) -> Result<Box<dyn Server>> {
        let tickets = Some(TicketKeys::random());
        let (chain, key) = (identity.chain.as_bytes(), identity.key.as_bytes());
        let tls = ServerTls::from_pem(chain, key, &[ALPN.as_bytes()], tickets)?.raw_keys();
        let mut config = roomy(steered());
        config.transport.new_tokens = true;
        if options.retry {
            config.retry_above = 0;
        }
        let make = move |address| Engine::new(config, Some(tls), None, address);
        Ok(Box::new(NodeServer::start(make)?))
    }

    fn client(&self, identity: &Identity, _: &ClientOptions) -> Result<Box<dyn Client>> {
        let roots = identity.chain.as_bytes();
        let tls = ClientTls::trusting_pem(roots, &[ALPN.as_bytes()], true)?.raw_keys();
        let mut config = roomy(CidFormat::Compact);
        config.transport.resumption = true;
        let make = |address| Engine::new(config, None, Some(tls), address);
        Ok(Box::new(NodeClient::new(make)?))
    }
}

/// Keys of its own, and room for more streams than production permits.
fn roomy(format: CidFormat) -> Config {
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).expect("the random source works");
    let mut config = config(u64::from_le_bytes(seed), format);
    config.transport.streams_bidi = 16;
    config.transport.streams_uni = 16;
    config.transport.stream_window = 64 << 10;
    config.transport.connection_window = 256 << 10;
    config
}

type Node = Own<RustlsTls, AwsLc>;

/// An endpoint, and what is needed to make it anew.
struct Engine {
    node: Node,
    config: Config,
    server: Option<Arc<rustls::ServerConfig>>,
    client: Option<Arc<rustls::ClientConfig>>,
    address: SocketAddr,
    phases: (bool, bool),
}

impl Engine {
    fn new(
        config: Config,
        server: Option<Arc<rustls::ServerConfig>>,
        client: Option<Arc<rustls::ClientConfig>>,
        address: SocketAddr,
    ) -> Self {
        Self {
            node: Own::new(config.clone(), server.clone(), AwsLc::default(), address),
            config,
            server,
            client,
            address,
            phases: (false, false),
        }
    }
}

impl Peer for Engine {
    type Node = Node;

    fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    fn connect(&mut self, now: Time, to: SocketAddr) -> Result<()> {
        let tls = self.client.as_ref().context("a client")?;
        self.node.connect(now, tls, to);
        Ok(())
    }

    fn migrate(&mut self, now: Time, to: SocketAddr) -> Result<()> {
        self.node.addresses.push(to);
        let socket = u16::try_from(self.node.addresses.len() - 1)?;
        let handle = self.node.h();
        let moved = self.node.endpoint.migrate(now, handle, socket);
        moved.map_err(|_| anyhow::anyhow!("the engine does not migrate now"))
    }

    fn close_with(&mut self, now: Time, code: u32, reason: &str) {
        let handle = self.node.h();
        let reason = reason.as_bytes();
        self.node
            .endpoint
            .close_with_reason(now, handle, code.into(), reason);
    }

    /// As a restart: the same keys and the next epoch (T2).
    fn forget(&mut self, _: Time) -> Result<()> {
        self.config.epoch += 1;
        let (config, server) = (self.config.clone(), self.server.clone());
        self.node = Own::new(config, server, AwsLc::default(), self.address);
        Ok(())
    }

    fn observe(&mut self, facts: &mut Facts) {
        if let Some(connected) = self.node.connected.take() {
            facts.connected += 1;
            facts.alpn = String::from_utf8_lossy(&connected.alpn).into_owned();
            facts.resumed.push(connected.resumed);
            self.phases = (false, false);
        }
        if let Some(handle) = self.node.handle {
            if let Some(path) = self.node.endpoint.path(handle) {
                facts.saw(path.remote);
            }
            if let Some(phases) = self.node.endpoint.key_phases(handle) {
                let updates = facts.key_updates.get_or_insert((0, 0));
                updates.0 += u32::from(phases.0 != self.phases.0);
                updates.1 += u32::from(phases.1 != self.phases.1);
                self.phases = phases;
            }
        }
        if let Some(reason) = self.node.last_close.take() {
            facts.ends.push(end(reason));
        }
    }

    fn has_ticket(&self, notes: &[Note]) -> bool {
        notes.contains(&Note::Ticket)
    }

    fn poke(&mut self, now: Time) {
        if let Some(handle) = self.node.handle {
            // It fails only while the connection closes.
            let _ = self.node.endpoint.ping(now, handle);
        }
    }

    fn release(&mut self) {
        self.node.handle = None;
    }
}

fn end(reason: CloseReason) -> End {
    match reason {
        CloseReason::LocalApplication(_) => End::Here,
        CloseReason::PeerApplication { code, reason } => End::Application {
            code,
            reason: Some(String::from_utf8_lossy(&reason).into_owned()),
        },
        CloseReason::StatelessReset => End::Reset,
        CloseReason::VersionMismatch => End::Version,
        other => End::Other(other.to_string()),
    }
}
