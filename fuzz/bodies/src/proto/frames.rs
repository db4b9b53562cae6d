//! Frames of a stream: any bytes in any pieces give frames or an error, never more memory than a frame;
//! what decodes survives being encoded (P1, T8).

use bytes::{Bytes, BytesMut};
use prost::Message;
use roadstead_proto::limits::{FRAME_BYTES_MAX, LENGTH_PREFIX_BYTES_MAX};
use roadstead_proto::v1::{ClientFrame, Envelope, ServerFrame};
use roadstead_proto::{ChatId, Deframer, Position, decode_frame, encode_frame, v1};

/// First byte: size of the pieces; its highest bit chooses a small limit. The rest: the stream.
pub fn run(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let max = if first & 0x80 == 0 {
        FRAME_BYTES_MAX
    } else {
        100
    };
    let whole = frames(stream, stream.len().max(1), max);
    let pieces = frames(stream, 1 + usize::from(first & 0x7f), max);
    assert_eq!(whole, pieces, "how the bytes arrive does not matter");
    for frame in whole.0 {
        survives::<ClientFrame>(&frame);
        survives::<ServerFrame>(&frame);
        survives::<Envelope>(&frame);
    }
}

/// The frames of a stream and whether it ended in an error.
fn frames(stream: &[u8], piece: usize, max: usize) -> (Vec<Bytes>, bool) {
    let mut deframer = Deframer::new(max);
    let mut frames = Vec::new();
    for piece in stream.chunks(piece) {
        let mut chunk = Bytes::copy_from_slice(piece);
        loop {
            match deframer.next_frame(&mut chunk) {
                Ok(Some(frame)) => {
                    assert!(!frame.is_empty() && frame.len() <= max);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(chunk.is_empty(), "a chunk is consumed");
        let held = deframer.buffered();
        assert!(held <= max + LENGTH_PREFIX_BYTES_MAX, "{held} bytes held");
    }
    (frames, false)
}

fn survives<M: Message + Default + PartialEq + std::fmt::Debug>(frame: &Bytes) {
    let Ok(message) = decode_frame::<M>(frame.clone()) else {
        return;
    };
    let mut out = BytesMut::new();
    encode_frame(&message, &mut out);
    if message.encoded_len() == 0 || message.encoded_len() > FRAME_BYTES_MAX {
        return;
    }
    let mut chunk = out.freeze();
    let again = Deframer::new(FRAME_BYTES_MAX).next_frame(&mut chunk);
    let again = again.expect("it was encoded").expect("whole");
    assert_eq!(decode_frame::<M>(again), Ok(message));
}

/// One frame of every kind, each alone, and all of them behind each other.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = client_frames()
        .into_iter()
        .map(|body| encoded(&ClientFrame { body: Some(body) }))
        .chain(
            server_frames()
                .into_iter()
                .map(|body| encoded(&ServerFrame { body: Some(body) })),
        )
        .collect();
    seeds.push(seeds.concat());
    let with_piece = |(n, seed): (usize, &Vec<u8>)| [&[n.to_le_bytes()[0]][..], seed].concat();
    seeds.iter().enumerate().map(with_piece).collect()
}

fn encoded(frame: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(frame, &mut out);
    out
}

fn position() -> Bytes {
    Bytes::copy_from_slice(Position::new(1, [0, 0, 0, 0, 0, 0, 0, 9, 0, 0], 2).as_bytes())
}

fn chat() -> Bytes {
    let user = |id| roadstead_proto::UserId::new(id).expect("not 0");
    Bytes::copy_from_slice(ChatId::pair(user(1), user(2)).as_bytes())
}

fn client_frames() -> Vec<v1::client_frame::Body> {
    use v1::client_frame::Body;
    let hello = v1::Hello {
        version: 1,
        credential: Some(v1::hello::Credential::Token("header.claims.mac".into())),
        device: 7,
        connect_counter: 3,
        cursor: position(),
        capabilities: 1,
    };
    let send = v1::Send {
        number: 1,
        chat: chat(),
        payload: Bytes::from_static(b"hello"),
        deadline_ms: 5_000,
        after: 5,
    };
    vec![
        Body::Hello(hello),
        Body::Send(send),
        Body::Ack(v1::Ack { cursor: position() }),
        Body::Read(v1::Read {
            chat: chat(),
            position: position(),
        }),
        Body::Typing(v1::Typing {
            chat: chat(),
            user: 0,
        }),
        Body::Ping(v1::Ping { nonce: 9 }),
    ]
}

fn server_frames() -> Vec<v1::server_frame::Body> {
    use v1::server_frame::Body;
    let welcome = v1::Welcome {
        user: 1,
        generation: 1,
        limits: Some(v1::Limits {
            frame_bytes_max: 65_536,
            sends_in_flight_max: 128,
            payload_bytes_max: 65_024,
        }),
        heartbeat_interval_ms: 120_000,
        home_prefix: Some(v1::HomePrefix {
            bits: 0x8000,
            length: 1,
        }),
        resume_token: Bytes::from_static(&[7; 36]),
        highest_number: Some(4),
        ..v1::Welcome::default()
    };
    let envelope = Envelope {
        message_id: 5,
        chat: chat(),
        sender: 1,
        sender_device: 7,
        server_time_ms: 1_700_000_000_000,
        payload: Bytes::from_static(b"hello"),
        number: 1,
    };
    vec![
        Body::Welcome(welcome),
        Body::SendResult(v1::SendResult {
            number: 1,
            message_id: 5,
            position: position(),
            server_time_ms: 1_700_000_000_000,
        }),
        Body::Deliver(v1::Deliver {
            cursor: position(),
            chat_position: position(),
            envelope: Some(envelope),
        }),
        Body::ReceiptUpdate(v1::ReceiptUpdate {
            cursor: position(),
            chat: chat(),
            user: 2,
            delivered: position(),
            read: position(),
        }),
        Body::Gap(v1::Gap {
            cursor: position(),
            reason: 1,
        }),
        Body::Error(roadstead_proto::ErrorCode::Overloaded.frame("later")),
        Body::GoAway(v1::GoAway {
            reconnect_after_ms: 900,
            reason: "drain".into(),
        }),
        Body::Pong(v1::Pong { nonce: 9 }),
    ]
}
