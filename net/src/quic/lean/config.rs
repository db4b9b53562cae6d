//! The endpoint's configuration from that of the seam.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use roadstead_quic::{CidFormat, Config, Endpoint, Time};

use super::{AwsLc, RustlsTls};
use crate::{
    config::{SecretKeys, Transport},
    error::Error,
    quic::{EngineConfig, IdPolicy, ServerSide},
    tls::random_bytes,
};

/// The largest DATAGRAM frame accepted: one packet's worth.
const DATAGRAM_FRAME_MAX: u16 = 1_200;

/// What path MTU discovery tries at most: an Ethernet frame less the headers of IPv6 and UDP.
const MTU_MAX: u16 = 1_452;

pub(super) fn endpoint(config: &EngineConfig) -> Result<Endpoint<RustlsTls, AwsLc>, Error> {
    let format = match config.ids {
        IdPolicy::Steered { shard, shards } => CidFormat::of_shard(shard.into(), shards.into()),
        // Eight bytes whatever is asked for: an index and a check (T5).
        IdPolicy::Random { .. } => CidFormat::Compact,
    };
    let mut lean = Config::new(format, random_bytes());
    lean.transport = transport(config)?;
    lean.wall_clock_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    match &config.server {
        Some(side) => secrets(&mut lean, side),
        // A client's ids and keys end with its process.
        None => {
            (lean.cid_key, lean.reset_key) = (random_bytes(), random_bytes());
            // A load generator is not attacked by the server that it chose.
            lean.in_flight_bytes_max = usize::MAX;
        }
    }
    let server = config.server.as_ref().map(|side| side.tls.lean.clone());
    Ok(Endpoint::new(lean, server, AwsLc::default(), Time::ZERO))
}

fn secrets(lean: &mut Config, side: &ServerSide) {
    let SecretKeys {
        reset,
        token,
        epoch,
    } = side.keys;
    lean.cid_key = id_key(&reset);
    (lean.reset_key, lean.token_key, lean.epoch) = (reset, token, epoch);
    lean.half_open_max = side.half_open_max;
    lean.blocks = side.blocks.clone();
    lean.retry_above = side.retry_half_open;
    lean.resets_per_s = side.resets_per_second;
}

/// The key of the permutation behind connection ids (T2), derived from the reset key, as both must
/// outlive the process together: an id of an earlier process is answered with a reset.
fn id_key(reset: &[u8; 32]) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, reset);
    let mac = hmac::sign(&key, b"roadstead connection id permutation");
    *mac.as_ref().first_chunk().expect("32 bytes")
}

fn transport(config: &EngineConfig) -> Result<roadstead_quic::Transport, Error> {
    let Transport {
        idle_timeout,
        handshake_timeout,
        receive_window_initial,
        receive_window_max: _,
        send_window,
        send_backlog,
        datagram_buffer,
        udp_payload,
        gso: _,
    } = config.transport;
    Ok(roadstead_quic::Transport {
        idle_timeout_ms: millis(idle_timeout, "the idle timeout is too long")?,
        handshake_timeout_ms: millis(handshake_timeout, "the handshake timeout is too long")?,
        // One stream has all of the connection's window (T8).
        stream_window: receive_window_initial,
        connection_window: receive_window_initial,
        streams_bidi: u32::from(config.server.is_some()),
        streams_uni: 0,
        datagram_frame_max: if datagram_buffer == 0 {
            0
        } else {
            DATAGRAM_FRAME_MAX
        },
        datagram_send_buffer: datagram_buffer,
        stream_send_buffer: send_window as usize + send_backlog,
        payload_max: udp_payload,
        mtu_max: udp_payload.max(MTU_MAX),
        resumption: config.client.as_ref().is_some_and(|tls| tls.resumption),
        ..roadstead_quic::Transport::default()
    })
}

fn millis(duration: Duration, error: &str) -> Result<u32, Error> {
    u32::try_from(duration.as_millis()).map_err(|_| Error::Config(error.into()))
}
