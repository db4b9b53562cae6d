//! Transport parameters: what decodes lies within the bounds, and survives being encoded (RFC 9000 18).

use roadstead_quic::Side;
use roadstead_quic::frame::MAX_STREAMS_LIMIT;
use roadstead_quic::params::Params;

/// First byte: who sent them. The rest: the extension's body.
pub fn run(data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let sender = if first & 1 == 0 {
        Side::Client
    } else {
        Side::Server
    };
    let Ok(params) = Params::decode(body, sender) else {
        return;
    };
    bounds(&params, sender);
    let grease = (first & 2 != 0).then_some(u64::from(*first));
    let kept = Params {
        // It is noted and not kept (RFC 9000 9.6).
        has_preferred_address: false,
        ..params
    };
    assert_eq!(Params::decode(&kept.encode(grease), sender), Ok(kept));
}

/// RFC 9000 7.4, 18.2.
fn bounds(params: &Params, sender: Side) {
    assert!(params.max_udp_payload_size >= 1_200);
    assert!(params.ack_delay_exponent <= 20);
    assert!(params.max_ack_delay_ms < 1 << 14);
    assert!(params.active_connection_id_limit >= 2);
    assert!(params.initial_max_streams_bidi <= MAX_STREAMS_LIMIT);
    assert!(params.initial_max_streams_uni <= MAX_STREAMS_LIMIT);
    if sender.is_client() {
        assert_eq!(params.original_destination_connection_id, None);
        assert_eq!(params.retry_source_connection_id, None);
        assert_eq!(params.stateless_reset_token, None);
        assert!(!params.has_preferred_address);
    }
}

/// The defaults, a full set, and one of each that only a server may send.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let id = |byte: u8| roadstead_quic::packet::ConnectionId::new(&[byte; 7]);
    let common = Params {
        max_idle_timeout_ms: 90_000,
        max_udp_payload_size: 1_472,
        initial_max_data: 1 << 20,
        initial_max_stream_data_bidi_local: 4_096,
        initial_max_stream_data_bidi_remote: 8_192,
        initial_max_stream_data_uni: 1,
        initial_max_streams_bidi: 1,
        initial_max_streams_uni: MAX_STREAMS_LIMIT,
        ack_delay_exponent: 20,
        max_ack_delay_ms: (1 << 14) - 1,
        disable_active_migration: true,
        active_connection_id_limit: 8,
        initial_source_connection_id: id(2),
        max_datagram_frame_size: 1_200,
        ..Params::default()
    };
    let server = Params {
        original_destination_connection_id: id(1),
        stateless_reset_token: Some([7; 16]),
        retry_source_connection_id: id(3),
        ..common
    };
    let preferred = [&[1, 0x0d, 45][..], &[0; 24], &[4, 0, 0, 0, 0], &[0; 16]].concat();
    vec![
        vec![0],
        [&[0][..], &common.encode(None)].concat(),
        [&[2][..], &common.encode(Some(9))].concat(),
        [&[1][..], &server.encode(None)].concat(),
        preferred,
    ]
}
