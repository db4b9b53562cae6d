//! What earlier releases have left on disk (`verify/releases`): the server of today finds every message in it, and
//! every answer.

mod support;

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use support::{Client, Edge, Expect};

/// The samples of all releases: the packed store, and what a client must find in it.
fn samples() -> Vec<(PathBuf, String)> {
    let releases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../verify/releases");
    let mut samples = Vec::new();
    for release in std::fs::read_dir(releases).expect("samples") {
        let release = release.expect("an entry").path();
        for name in ["stopped", "killed"] {
            let packed = release.join(format!("{name}.tar.zst"));
            if packed.exists() {
                let found = std::fs::read_to_string(release.join(format!("{name}.txt")));
                samples.push((packed, found.expect("what is in it")));
            }
        }
    }
    assert!(samples.len() >= 2, "{samples:?}");
    samples
}

fn unpack(packed: &Path, into: &Path) {
    let file = std::fs::File::open(packed).expect("a sample");
    let mut unpacked = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(file)
        .expect("a frame of zstd")
        .read_to_end(&mut unpacked)
        .expect("whole");
    tar::Archive::new(&unpacked[..])
        .unpack(into)
        .expect("an archive");
}

fn hex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("two hexadecimal digits")
    };
    match text {
        "-" => Bytes::new(),
        _ => digits.map(byte).collect(),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// One line of what must be found, compared with what came.
fn is_as_it_was(line: &[&str], came: &Expect) -> bool {
    match (line, came) {
        (
            [
                "deliver",
                _,
                _,
                cursor,
                chat,
                sender,
                device,
                sent,
                id,
                payload,
            ],
            Expect::Deliver(it),
        ) => {
            let envelope = it.envelope.as_ref().expect("a message");
            it.cursor == hex(cursor)
                && envelope.chat == hex(chat)
                && envelope.sender == number(sender)
                && u64::from(envelope.sender_device) == number(device)
                && envelope.number == number(sent)
                && envelope.message_id == number(id)
                && envelope.payload == hex(payload)
        }
        (["receipt", _, _, cursor, chat, user, delivered, read], Expect::ReceiptUpdate(it)) => {
            it.cursor == hex(cursor)
                && it.chat == hex(chat)
                && it.user == number(user)
                && it.delivered == hex(delivered)
                && it.read == hex(read)
        }
        _ => false,
    }
}

/// A session of a device that has used other sessions before.
async fn login(edge: &Edge, user: &str, device: &str) -> Client {
    let device = u32::try_from(number(device)).expect("a device");
    Client::resume(edge, number(user), device, 1_000_000, Bytes::new())
        .await
        .0
}

#[tokio::test]
async fn r12_r17_the_store_of_an_earlier_release_is_all_there() {
    for (packed, found) in samples() {
        let folder = tempfile::tempdir().expect("a folder");
        unpack(&packed, folder.path());
        let mut edge = Edge::start_on(folder.path(), None, "", &[]);
        let lines: Vec<Vec<&str>> = found
            .lines()
            .map(|line| line.split(' ').collect())
            .collect();
        let mut at = 0;
        while at < lines.len() {
            let (kind, user, device) = (lines[at][0], lines[at][1], lines[at][2]);
            let is_answer = kind == "answer";
            let mine = lines[at..].iter().take_while(|line| {
                line[1..3] == [user, device] && (line[0] == "answer") == is_answer
            });
            let mine: Vec<_> = mine.collect();
            let mut client = login(&edge, user, device).await;
            for line in &mine {
                if is_answer {
                    ask_again(&mut client, line, &packed).await;
                } else {
                    let came = client.next().await;
                    assert!(
                        is_as_it_was(line, &came),
                        "{packed:?}: {line:?}, and {came:?}"
                    );
                }
            }
            at += mine.len();
            client.leave().await;
        }
        assert!(edge.terminate().success());
    }
}

/// A number that is sent again, whose answer is kept: nothing is said twice.
async fn ask_again(client: &mut Client, line: &[&str], packed: &Path) {
    let [_, _, _, of, chat, payload, id, position] = line else {
        panic!("{packed:?}: {line:?}");
    };
    client
        .message_numbered(number(of), hex(chat), &hex(payload))
        .await;
    loop {
        match client.next().await {
            Expect::SendResult(answer) => {
                assert_eq!(answer.number, number(of), "{packed:?}");
                assert_eq!(answer.message_id, number(id), "{packed:?}");
                assert_eq!(answer.position, hex(position), "{packed:?}");
                return;
            }
            // What waits for the device comes as well.
            Expect::Deliver(_) | Expect::ReceiptUpdate(_) => {}
            other => panic!("{packed:?}: {other:?}"),
        }
    }
}
