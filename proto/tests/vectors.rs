//! Golden vectors: the bytes of every frame, and of frames that must be refused.
//!
//! The files in `vectors/` are for implementers in any language; `docs/PROTOCOL.md` explains them. This
//! test holds them and the generated code together, byte for byte.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use roadstead_proto::v1::{self, client_frame, server_frame};
use roadstead_proto::{
    ChatId, Deframer, DeviceId, ErrorCode, FrameError, IdError, Position, UserId, decode_frame,
    encode_frame, error, limits,
};

const CLIENT: &str = include_str!("vectors/client.txt");
const SERVER: &str = include_str!("vectors/server.txt");
const DOCUMENT: &str = include_str!("../../docs/PROTOCOL.md");
const SCHEMA: &str = include_str!("../schema/roadstead/v1/session.proto");
const MALFORMED: &str = include_str!("vectors/malformed.txt");

/// `name hex`, with `#` for comments.
fn vectors(file: &str) -> BTreeMap<&str, Vec<u8>> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let entries = lines.filter_map(|line| line.split_once(' '));
    let parsed: BTreeMap<&str, Vec<u8>> =
        entries.map(|(name, hex)| (name, from_hex(hex))).collect();
    assert!(!parsed.is_empty());
    parsed
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
    let byte = |pair: &[char]| {
        let text: String = pair.iter().collect();
        u8::from_str_radix(&text, 16).expect("two hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn position(counter: u8) -> Bytes {
    let mut stamp = [0; 10];
    stamp[7] = counter;
    Bytes::copy_from_slice(Position::new(1, stamp, 0).as_bytes())
}

fn chat() -> Bytes {
    let user = |id| UserId::new(id).expect("not 0");
    Bytes::copy_from_slice(ChatId::pair(user(2), user(1)).as_bytes())
}

fn client_frames() -> Vec<(&'static str, client_frame::Body)> {
    use client_frame::Body;
    let hello = v1::Hello {
        version: 1,
        credential: Some(v1::hello::Credential::Token("jwt".into())),
        device: 0x0102_0304,
        connect_counter: 1,
        cursor: Bytes::new(),
        capabilities: 0,
    };
    let resume = v1::Hello {
        credential: Some(v1::hello::Credential::ResumeToken(Bytes::from_static(
            b"rt",
        ))),
        connect_counter: 300,
        cursor: position(7),
        capabilities: 1,
        ..hello.clone()
    };
    let send = v1::Send {
        number: 1,
        chat: chat(),
        payload: Bytes::from_static(b"hello"),
        deadline_ms: 0,
        after: 0,
    };
    let after = v1::Send {
        number: 8,
        after: 7,
        ..send.clone()
    };
    let late = v1::Send {
        number: 128,
        payload: Bytes::new(),
        deadline_ms: 5_000,
        ..send.clone()
    };
    let read = v1::Read {
        chat: chat(),
        position: position(8),
    };
    let typing = v1::Typing {
        chat: chat(),
        user: 0,
    };
    vec![
        ("hello_with_token", Body::Hello(hello)),
        ("hello_with_resume_token", Body::Hello(resume)),
        ("send", Body::Send(send)),
        ("send_empty_with_deadline", Body::Send(late)),
        ("send_after_a_refusal", Body::Send(after)),
        (
            "ack",
            Body::Ack(v1::Ack {
                cursor: position(8),
            }),
        ),
        ("read", Body::Read(read)),
        ("typing", Body::Typing(typing)),
        ("ping", Body::Ping(v1::Ping { nonce: 42 })),
    ]
}

fn welcome() -> v1::Welcome {
    v1::Welcome {
        user: 1,
        generation: 1,
        resync: false,
        limits: Some(v1::Limits {
            frame_bytes_max: 65_536,
            sends_in_flight_max: 128,
            payload_bytes_max: 65_024,
        }),
        heartbeat_interval_ms: 120_000,
        server_time_ms: 1_767_225_600_000,
        highest_number: None,
        home_prefix: Some(v1::HomePrefix {
            bits: 0x8000,
            length: 1,
        }),
        resume_token: Bytes::from_static(b"rt"),
        node_hints: Vec::new(),
        capabilities: v1::ServerCapability::FinalChatRefusals as u64,
    }
}

fn server_frames() -> Vec<(&'static str, server_frame::Body)> {
    use server_frame::Body;
    let resync = v1::Welcome {
        resync: true,
        highest_number: Some(0),
        node_hints: vec!["edge2.example:4433".into()],
        ..welcome()
    };
    let result = v1::SendResult {
        number: 1,
        message_id: 0x0001_d5c3_4b00_0001,
        position: position(8),
        server_time_ms: 1_767_225_601_000,
    };
    let deliver = v1::Deliver {
        cursor: position(8),
        chat_position: Bytes::new(),
        envelope: Some(v1::Envelope {
            message_id: 0x0001_d5c3_4b00_0001,
            chat: chat(),
            sender: 1,
            sender_device: 0x0102_0304,
            server_time_ms: 1_767_225_601_000,
            payload: Bytes::from_static(b"hello"),
            number: 1,
        }),
    };
    let elsewhere = v1::Deliver {
        cursor: position(9),
        chat_position: position(8),
        ..deliver.clone()
    };
    let receipt = v1::ReceiptUpdate {
        cursor: position(10),
        chat: chat(),
        user: 2,
        delivered: position(8),
        read: Bytes::new(),
    };
    let refused = v1::Error {
        code: v1::ErrorCode::StoreUnavailable.into(),
        retryable: true,
        retry_after_ms: 250,
        message: "later".into(),
        number: 2,
    };
    let behind = v1::Error {
        code: v1::ErrorCode::EarlierRefused.into(),
        number: 3,
        ..refused.clone()
    };
    let busy = v1::Error {
        code: v1::ErrorCode::ChatBusy.into(),
        retryable: false,
        retry_after_ms: 4_000,
        number: 7,
        ..refused.clone()
    };
    let closing = v1::Error {
        code: v1::ErrorCode::SessionReplaced.into(),
        ..v1::Error::default()
    };
    let gap = v1::Gap {
        cursor: position(11),
        reason: v1::GapReason::InboxLimit.into(),
    };
    let go_away = v1::GoAway {
        reconnect_after_ms: 2_750,
        reason: "drain".into(),
    };
    let typing = v1::Typing {
        chat: chat(),
        user: 2,
    };
    vec![
        ("welcome", Body::Welcome(welcome())),
        ("welcome_after_resync", Body::Welcome(resync)),
        ("send_result", Body::SendResult(result)),
        ("deliver", Body::Deliver(deliver)),
        ("deliver_with_chat_position", Body::Deliver(elsewhere)),
        ("receipt_update", Body::ReceiptUpdate(receipt)),
        ("gap", Body::Gap(gap)),
        ("error_of_a_send", Body::Error(refused)),
        ("error_behind_another", Body::Error(behind)),
        ("error_of_a_busy_chat", Body::Error(busy)),
        ("error_of_the_session", Body::Error(closing)),
        ("go_away", Body::GoAway(go_away)),
        ("typing", Body::Typing(typing)),
        ("pong", Body::Pong(v1::Pong { nonce: 42 })),
    ]
}

/// Both directions, and nothing in the file without a frame in the code.
fn check<M: Message + Default + PartialEq + Debug>(file: &str, frames: Vec<(&str, M)>) {
    let mut expected = vectors(file);
    for (name, frame) in frames {
        let mut bytes = Vec::new();
        encode_frame(&frame, &mut bytes);
        let golden = expected
            .remove(name)
            .unwrap_or_else(|| panic!("no vector: {name} {}", to_hex(&bytes)));
        assert_eq!(to_hex(&bytes), to_hex(&golden), "{name}");
        let mut chunk = Bytes::from(golden);
        let mut deframer = Deframer::new(limits::FRAME_BYTES_MAX);
        let body = deframer.next_frame(&mut chunk).expect("valid");
        let decoded: M = decode_frame(body.expect("whole")).expect("valid");
        assert_eq!(decoded, frame, "{name}");
        assert!(chunk.is_empty(), "{name}: one frame");
    }
    assert!(expected.is_empty(), "no frame for {:?}", expected.keys());
}

#[test]
fn p6_every_client_frame_has_these_bytes() {
    let frames = client_frames().into_iter();
    let frames = frames.map(|(name, body)| (name, v1::ClientFrame { body: Some(body) }));
    check(CLIENT, frames.collect());
}

#[test]
fn p6_every_server_frame_has_these_bytes() {
    let frames = server_frames().into_iter();
    let frames = frames.map(|(name, body)| (name, v1::ServerFrame { body: Some(body) }));
    check(SERVER, frames.collect());
}

/// What the deframer and the decoder make of a stream's first bytes.
fn read(bytes: &[u8]) -> Result<Option<v1::ClientFrame>, FrameError> {
    let mut chunk = Bytes::copy_from_slice(bytes);
    let frame = Deframer::new(limits::FRAME_BYTES_MAX).next_frame(&mut chunk)?;
    frame.map(decode_frame).transpose()
}

#[test]
fn p5_p7_malformed_vectors_are_refused_for_their_reason() {
    check_malformed(MALFORMED);
}

/// `verify/releases`: what clients and servers of earlier releases say is read, whole, and says the same.
#[test]
fn p8_the_vectors_of_every_release_are_read() {
    let releases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../verify/releases");
    let mut read = 0;
    for release in std::fs::read_dir(releases).expect("releases") {
        let folder = release.expect("an entry").path().join("vectors");
        let Ok(client) = std::fs::read_to_string(folder.join("client.txt")) else {
            continue;
        };
        let server = std::fs::read_to_string(folder.join("server.txt")).expect("vectors");
        let malformed = std::fs::read_to_string(folder.join("malformed.txt")).expect("vectors");
        read += check_again::<v1::ClientFrame>(&client) + check_again::<v1::ServerFrame>(&server);
        check_malformed(&malformed);
    }
    assert!(read >= 18, "{read} vectors");
}

/// Frames that are read and written again; how many.
fn check_again<M: Message + Default>(file: &str) -> usize {
    let vectors = vectors(file);
    for (name, golden) in &vectors {
        let mut chunk = Bytes::copy_from_slice(golden);
        let mut deframer = Deframer::new(limits::FRAME_BYTES_MAX);
        let body = deframer.next_frame(&mut chunk).expect("valid");
        let frame: M = decode_frame(body.expect("whole")).expect("valid");
        let mut bytes = Vec::new();
        encode_frame(&frame, &mut bytes);
        assert_eq!(to_hex(&bytes), to_hex(golden), "{name}");
    }
    vectors.len()
}

fn check_malformed(file: &str) {
    for (name, bytes) in vectors(file) {
        let (class, _) = name.split_once('/').expect("class/name");
        let read = read(&bytes);
        match class {
            "incomplete" => assert_eq!(read, Ok(None), "{name}: more bytes can mend it"),
            "prefix" => assert!(
                matches!(
                    read,
                    Err(FrameError::PrefixOverlong | FrameError::PrefixTooLong | FrameError::Empty)
                ),
                "{name}: {read:?}"
            ),
            "too_large" => assert!(
                matches!(read, Err(FrameError::TooLarge { .. })),
                "{name}: {read:?}"
            ),
            "malformed" => assert!(
                matches!(read, Err(FrameError::Malformed(_))),
                "{name}: {read:?}"
            ),
            "no_body" => assert_eq!(read, Ok(Some(v1::ClientFrame { body: None })), "{name}"),
            "field" => check_field(name, read.expect("a frame").expect("whole")),
            other => panic!("unknown class {other}"),
        }
    }
}

/// Frames whose bytes are a message and whose content is none: the identifier types refuse them.
fn check_field(name: &str, frame: v1::ClientFrame) {
    use client_frame::Body;
    match frame.body.expect("a body") {
        Body::Hello(hello) => assert!(
            DeviceId::new(hello.device).is_err() || Position::from_field(&hello.cursor).is_none(),
            "{name}"
        ),
        Body::Send(send) => {
            let bad_chat = ChatId::from_slice(&send.chat).is_err();
            assert!(bad_chat || send.number == 0, "{name}");
        }
        Body::Ack(ack) => assert_eq!(Position::from_slice(&ack.cursor), None, "{name}"),
        Body::Read(read) => assert_eq!(Position::from_slice(&read.position), None, "{name}"),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn p4_every_cut_of_every_vector_is_incomplete_never_invalid() {
    for file in [CLIENT, SERVER] {
        for (name, bytes) in vectors(file) {
            for cut in 0..bytes.len() {
                let mut chunk = Bytes::copy_from_slice(&bytes[..cut]);
                let frame = Deframer::new(limits::FRAME_BYTES_MAX).next_frame(&mut chunk);
                assert_eq!(frame, Ok(None), "{name} cut at {cut}");
            }
        }
    }
}

#[test]
fn p8_unknown_fields_are_passed_over() {
    // Field 15 of ClientFrame and field 9 of Ack exist in no schema yet.
    let with_unknown = from_hex("18 1a14 0a10 00000001000000000000000800000000 4a00 7801");
    let mut bytes = with_unknown;
    bytes[0] = u8::try_from(bytes.len() - 1).expect("short");
    let frame = read(&bytes).expect("valid").expect("whole");
    let ack = v1::Ack {
        cursor: Bytes::copy_from_slice(&from_hex("00000001000000000000000800000000")),
    };
    assert_eq!(frame.body, Some(client_frame::Body::Ack(ack)));
}

#[test]
fn vectors_that_differ_in_identity_are_refused_by_the_types() {
    assert_eq!(ChatId::from_slice(&[0; 16]), Err(IdError::Zero));
    // A canary: were the vectors not read at all, the tests above would pass.
    assert!(vectors(MALFORMED).len() >= 25);
    assert_eq!(vectors(CLIENT).len(), 9);
    assert_eq!(vectors(SERVER).len(), 14);
}

/// The bytes of an annotated block: what stands before two spaces, if it is hexadecimal.
fn annotated(block: &str) -> Vec<u8> {
    let lines = block.lines().map(|line| line.trim().split("  ").next());
    let hex = |text: &&str| text.chars().all(|c| c.is_ascii_hexdigit() || c == ' ');
    let bytes = lines.flatten().filter(hex).map(from_hex);
    bytes.flatten().collect()
}

#[test]
fn the_documents_worked_example_is_made_of_vectors() {
    let (_, section) = DOCUMENT
        .split_once("Worked example\n")
        .expect("it is there");
    let (section, _) = section.split_once("\n## ").expect("it is there");
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    let (client, server) = (vectors(CLIENT), vectors(SERVER));
    let expected = [
        &client["hello_with_token"],
        &server["welcome"],
        &client["send"],
        &server["send_result"],
        &server["deliver"],
        &client["ack"],
    ];
    assert_eq!(blocks.len(), expected.len());
    for (block, bytes) in blocks.iter().zip(expected) {
        assert_eq!(to_hex(&annotated(block)), to_hex(bytes), "{block}");
    }
}

/// The first have no gaps; later ones have ranges of their own, and stay with their text. They stand in order, so
/// that whoever is sent to one finds it.
#[test]
fn the_documents_requirements_are_numbered_once_and_in_order() {
    let after_marks = DOCUMENT.split("**P").skip(1);
    let numbers = after_marks.filter_map(|text| text.split_once("**")?.0.parse().ok());
    let numbers: Vec<u32> = numbers.collect();
    let expected: Vec<u32> = (1..=54).chain(110..=114).collect();
    assert_eq!(numbers, expected);
}

/// The row of each code has its name, and whether a retry helps. The first is of a close alone: a client comes back
/// (P44), and no Error has it.
#[test]
fn fc8_p44_the_documents_codes_are_those_of_the_schema() {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| "));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split(" | ").collect()).collect();
    let rows = rows.iter().filter(|row| row.len() == 6);
    let written: Vec<(u64, String, bool)> = rows
        .filter_map(|row| Some((row[0].parse().ok()?, row[1].into(), row[2] == "yes")))
        .collect();
    let codes = (0..error::CODES_MAX as u64).filter_map(ErrorCode::from_close_code);
    let expected: Vec<(u64, String, bool)> = codes
        .map(|code| {
            let name = code.as_str_name().trim_start_matches("ERROR_CODE_");
            let retry = code == ErrorCode::Unspecified || code.is_retryable();
            (code.as_close_code().into(), name.into(), retry)
        })
        .collect();
    assert_eq!(written, expected);
}

/// Each field of a frame is named with its number, and each bit and reason.
#[test]
fn fc8_p6_the_document_names_every_field_of_the_schema() {
    let (_, frames) = DOCUMENT.split_once("## 6. Frames\n").expect("it is there");
    let (frames, _) = frames.split_once("\n## ").expect("it is there");
    let lines = SCHEMA.lines().map(str::trim);
    let fields = lines.filter_map(|line| line.strip_suffix(';')?.split_once(" = "));
    let mut count = 0;
    for (name, number) in fields {
        let Some((_, field)) = name.rsplit_once(' ') else {
            continue;
        };
        count += 1;
        // A table names a frame or a field before its number.
        let written = format!("`{field}` ({number})");
        assert!(frames.contains(&written), "{written}");
    }
    assert!(count > 60, "{count}: the schema was not read");
}
