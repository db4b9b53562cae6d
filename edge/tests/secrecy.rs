//! No secret, no message and no user reaches the log or the metrics, at the most talkative level.
//!
//! An edge is run at `trace` through logins, messages, refusals and a drain; then everything that it wrote
//! and served is searched for what it must not say, in every form in which a program may print bytes.

mod support;

use bytes::Bytes;
use roadstead_proto::v1::{Hello, client_frame, hello};
use support::{Client, Edge, Expect, chat};

/// Bytes of a secret that, found together, are no coincidence.
const TELLING_BYTES: usize = 9;

const PAYLOAD: &[u8] = b"Meet me at the quay at dawn";

/// Users whose decimal ids occur nowhere by chance.
const ONE: u64 = 7_351_902_846_113;
const TWO: u64 = 6_240_891_735_227;

/// A secret and its name.
struct Secret {
    name: String,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    /// The beginning of a secret, as itself, in hexadecimal, base64, as a list and as escaped text.
    fn of(name: &str, bytes: &[u8]) -> Self {
        let bytes = &bytes[..TELLING_BYTES.min(bytes.len())];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let escaped: String = format!("{:?}", Bytes::copy_from_slice(bytes));
        let forms = vec![
            bytes.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            base64(bytes, b"+/").into_bytes(),
            base64(bytes, b"-_").into_bytes(),
            list.join(", ").into_bytes(),
            escaped.as_bytes()[2..escaped.len() - 1].to_vec(),
        ];
        let name = name.to_owned();
        Self { name, forms }
    }

    fn is_in(&self, output: &[u8]) -> bool {
        self.forms.iter().any(|form| contains(output, form))
    }
}

fn contains(output: &[u8], form: &[u8]) -> bool {
    output.windows(form.len()).any(|window| window == form)
}

/// RFC 4648 section 4 or 5, of a multiple of three bytes.
fn base64(bytes: &[u8], last_two: &[u8; 2]) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        for shift in [18, 12, 6, 0] {
            let digit = number >> shift & 63;
            let letter = letters.get(digit).unwrap_or_else(|| &last_two[digit - 62]);
            text.push(char::from(*letter));
        }
    }
    text
}

/// What the data directory keeps secret.
fn key_files(edge: &Edge) -> Vec<Secret> {
    let binary = ["reset.key", "retry.key", "resume.key", "tickets.key"];
    let mut secrets: Vec<Secret> = binary
        .iter()
        .map(|name| {
            let bytes = std::fs::read(edge.data.join(name)).expect("the edge made it");
            Secret::of(name, &bytes)
        })
        .collect();
    for name in ["cert-key.pem", "token-key.pem"] {
        let pem = std::fs::read_to_string(edge.data.join(name)).expect("the edge made it");
        // The end of the body is the key; the beginning is the same for all keys of a kind.
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let end = body.trim_end_matches('=');
        let end = &end[end.len() - 2 * TELLING_BYTES..];
        secrets.push(Secret {
            name: name.into(),
            forms: vec![end.as_bytes().to_vec()],
        });
    }
    secrets
}

async fn pages(edge: &Edge, into: &mut Vec<u8>) {
    for page in ["/metrics", "/healthz", "/readyz"] {
        into.extend(edge.get(page).await.1.into_bytes());
    }
}

/// Logins by token and resume token, messages, receipts, refusals of every part that parses.
async fn busy(edge: &Edge) -> Vec<Secret> {
    let mut secrets = key_files(edge);
    let token = edge.token(ONE);
    let signature = token.rsplit('.').next().expect("three parts");
    secrets.push(Secret::of("signature of a token", signature.as_bytes()));
    let claims = token.split('.').nth(1).expect("three parts");
    secrets.push(Secret::of("claims of a token", &claims.as_bytes()[20..]));

    let mut two = Client::login(edge, TWO, 22).await;
    let mut hello = Hello {
        credential: Some(hello::Credential::Token(token.clone())),
        ..Client::hello(edge, ONE, 11)
    };
    let mut one = Client::connect(edge).await;
    one.say(client_frame::Body::Hello(hello.clone())).await;
    let Expect::Welcome(welcome) = one.next().await else {
        panic!("no Welcome");
    };
    let resume = welcome.resume_token;
    // It begins with the user's id; the end is its proof.
    let proof = &resume[resume.len() - TELLING_BYTES..];
    secrets.push(Secret::of("resume token", proof));
    secrets.push(Secret::of("payload", PAYLOAD));
    one.message(chat(ONE, TWO), PAYLOAD).await;
    one.result().await;
    let deliver = two.deliver().await;
    assert_eq!(&deliver.envelope.expect("one").payload[..], PAYLOAD);
    two.ack(deliver.cursor).await;
    one.receipt().await;

    // The device comes back by its resume token, and takes the older session over.
    hello.credential = Some(hello::Credential::ResumeToken(resume.clone()));
    hello.connect_counter = 2;
    let mut again = Client::connect(edge).await;
    again.say(client_frame::Body::Hello(hello.clone())).await;
    assert!(matches!(again.next().await, Expect::Welcome(_)));
    one.closed().await;

    // A forged resume token, a forged token, and a payload where a frame should be.
    let mut forged = resume.to_vec();
    *forged.last_mut().expect("not empty") ^= 1;
    for credential in [
        hello::Credential::ResumeToken(forged.into()),
        hello::Credential::Token(format!("{claims}.{claims}.{signature}")),
    ] {
        hello.credential = Some(credential);
        let mut bad = Client::connect(edge).await;
        bad.say(client_frame::Body::Hello(hello.clone())).await;
        assert!(bad.closed().await.is_some());
    }
    let mut garbage = Client::login(edge, ONE, 12).await;
    let length = u8::try_from(PAYLOAD.len()).expect("short");
    garbage.say_bytes(&[&[length], PAYLOAD].concat()).await;
    assert!(garbage.closed().await.is_some());

    secrets.push(Secret {
        name: "user ids".into(),
        forms: [ONE, TWO].map(|id| id.to_string().into_bytes()).to_vec(),
    });
    secrets
}

async fn nothing_leaks(engine: &str) {
    let mut edge = Edge::start_with("log = \"trace\"\n", &["--quic-engine", engine]);
    let secrets = busy(&edge).await;
    let mut output = Vec::new();
    pages(&edge, &mut output).await;
    output.extend(edge.whole_log());
    let said = String::from_utf8_lossy(&output);
    assert!(said.contains("roadstead ready"), "standard output is in it");
    assert!(
        said.contains("INFO") && said.contains("stopped"),
        "the log is in it"
    );
    assert!(
        said.contains("roadstead_sends_committed_total"),
        "the metrics are in it"
    );
    if engine == "quinn" {
        assert!(said.contains("TRACE"), "at every level");
    }
    let leaked: Vec<&str> = secrets
        .iter()
        .filter(|secret| secret.is_in(&output))
        .map(|secret| secret.name.as_str())
        .collect();
    assert!(
        leaked.is_empty(),
        "{leaked:?} in the log or the metrics:\n{said}"
    );
}

#[tokio::test]
async fn nothing_secret_is_said_with_quinn() {
    nothing_leaks("quinn").await;
}

#[tokio::test]
async fn nothing_secret_is_said_with_lean() {
    nothing_leaks("lean").await;
}

#[test]
fn every_form_of_a_secret_is_recognised() {
    let bytes = [0, 1, 2, 250, 251, 252, b'"', 127, 200, 99];
    let secret = Secret::of("it", &bytes);
    for said in [
        format!("key={:?}", &bytes[..]).into_bytes(),
        format!("key={:?}", Bytes::copy_from_slice(&bytes)).into_bytes(),
        b"key=000102fafbfc227fc863".to_vec(),
        b"key=000102FAFBFC227FC863".to_vec(),
        b"key=AAEC-vv8In_IYw".to_vec(),
        b"key=AAEC+vv8In/IYw==".to_vec(),
        [b"key=".as_slice(), &bytes].concat(),
    ] {
        assert!(secret.is_in(&said), "{}", String::from_utf8_lossy(&said));
    }
    assert!(!secret.is_in(b"key=000102fafbfb"));
}
