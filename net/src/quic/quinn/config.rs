//! quinn-proto's smallest configuration: what an idle session does not need is off.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::{Endpoint, IdleTimeout, TransportConfig, VarInt, congestion::NewRenoConfig};

use super::door::TOKEN_LIFETIME;
use crate::{
    config::{SecretKeys, Transport},
    error::Error,
    quic::{
        EngineConfig, ServerSide,
        ids::{FirstIds, IdLink, Ids},
        session::{ClientCrypto, QUIC_V1, ServerCrypto},
    },
};

/// Buffered bytes of Initials that wait for `accept`. This crate accepts at once, so none do.
const INCOMING_BYTES: u64 = 16 * 1024;

/// CRYPTO bytes out of order that a connection may buffer. A certificate chain of 5 KB fits (T11).
const CRYPTO_BYTES: usize = 16 * 1024;

/// The endpoint of one thread and, for a client, the configuration of its connections.
pub(super) fn build(
    config: &EngineConfig,
    link: &Arc<IdLink>,
    first_ids: &Arc<FirstIds>,
) -> Result<(Endpoint, Option<quinn_proto::ClientConfig>), Error> {
    let keys = config
        .server
        .as_ref()
        .map_or_else(SecretKeys::random, |side| side.keys.clone());
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &keys.reset);
    let mut endpoint = quinn_proto::EndpointConfig::new(Arc::new(reset));
    let (policy, link) = (config.ids, link.clone());
    endpoint.cid_generator(move || Box::new(Ids::new(policy, link.clone())));
    endpoint.supported_versions(vec![QUIC_V1]);
    // The door has its own budget; the engine's of one per interval would starve a restart (T1).
    endpoint.min_reset_interval(Duration::ZERO);
    let server = match &config.server {
        Some(side) => Some(Arc::new(server(side, &config.transport)?)),
        None => None,
    };
    let client = match &config.client {
        Some(tls) => {
            let crypto = ClientCrypto::new(tls.config.clone(), tls.resumption)?;
            let mut client = quinn_proto::ClientConfig::new(Arc::new(crypto));
            client.transport_config(Arc::new(transport(&config.transport, 0)?));
            client.version(QUIC_V1);
            let ids = first_ids.clone();
            client.initial_dst_cid_provider(Arc::new(move || ids.make()));
            Some(client)
        }
        None => None,
    };
    Ok((
        Endpoint::new(Arc::new(endpoint), server, false, None),
        client,
    ))
}

fn server(side: &ServerSide, limits: &Transport) -> Result<quinn_proto::ServerConfig, Error> {
    let crypto = ServerCrypto::new(side.tls.config.clone())?;
    let token = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&side.keys.token);
    let mut server = quinn_proto::ServerConfig::new(Arc::new(crypto), Arc::new(token));
    server.transport_config(Arc::new(transport(limits, 1)?));
    server.retry_token_lifetime(TOKEN_LIFETIME);
    server.migration(true);
    server.incoming_buffer_size(INCOMING_BYTES);
    server.incoming_buffer_size_total(INCOMING_BYTES);
    Ok(server)
}

/// `streams` is how many bidirectional streams the peer may open.
fn transport(limits: &Transport, streams: u32) -> Result<TransportConfig, Error> {
    let idle = IdleTimeout::try_from(limits.idle_timeout)
        .map_err(|_| Error::Config("the idle timeout is too long".into()))?;
    let datagrams = Some(limits.datagram_buffer).filter(|bytes| *bytes > 0);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(idle))
        // The stream's window cannot be raised later, the connection's can, and the smaller one counts.
        .stream_receive_window(VarInt::from_u32(limits.receive_window_max))
        .receive_window(VarInt::from_u32(limits.receive_window_initial))
        .send_window(u64::from(limits.send_window))
        .send_fairness(false)
        .initial_mtu(limits.udp_payload)
        .mtu_discovery_config(None)
        .crypto_buffer_size(CRYPTO_BYTES)
        .allow_spin(false)
        .datagram_receive_buffer_size(datagrams)
        .datagram_send_buffer_size(limits.datagram_buffer)
        .congestion_controller_factory(Arc::new(NewRenoConfig::default()))
        .enable_segmentation_offload(limits.gso);
    Ok(transport)
}
