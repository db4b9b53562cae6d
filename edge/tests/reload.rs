//! SIGHUP: certificate and keys are read again; sessions that are open go on, and what is new is new for the
//! next. What can not be read leaves the old in force.

mod support;

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use roadstead_proto::v1::{Hello, client_frame, hello};
use roadstead_proto::{ALPN, ErrorCode};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use support::{Client, Edge, Expect, chat, soon};

/// Asks the edge to read everything again, and waits until a file was, with this result, so often.
async fn reload(edge: &Edge, file: &str, result: &str, times: u64) {
    edge.signal(Signal::HUP);
    let labels = format!("file=\"{file}\",result=\"{result}\"");
    edge.metric_reaches("roadstead_reloads_total", &labels, times)
        .await;
}

/// A file of the data directory gets another content, whole or not at all.
fn replace(edge: &Edge, name: &str, bytes: &[u8]) {
    let (path, new) = (edge.data.join(name), edge.data.join("new"));
    std::fs::write(&new, bytes).expect("written");
    std::fs::rename(&new, &path).expect("renamed");
}

fn read(edge: &Edge, name: &str) -> Vec<u8> {
    std::fs::read(edge.data.join(name)).expect("the edge made it")
}

/// What the server of a connection says it is.
fn certificate_of(client: &Client) -> Vec<u8> {
    let identity = client.connection.peer_identity().expect("a server");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
    chain.expect("certificates")[0].to_vec()
}

async fn a_message_passes(one: &mut Client, two: &mut Client) {
    one.message(chat(1, 2), b"still here").await;
    one.result().await;
    let deliver = two.deliver().await;
    two.ack(deliver.cursor).await;
}

async fn certificates_are_replaced(engine: &str) {
    let edge = Edge::start_with("", &["--quic-engine", engine]);
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    let first = certificate_of(&one);

    // A certificate without its key, and none at all.
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let (old, new) = (read(&edge, "cert.pem"), made.cert.pem().into_bytes());
    for (times, bad) in [(1, &new[..]), (2, b"nothing")] {
        replace(&edge, "cert.pem", bad);
        reload(&edge, "certificate", "failed", times).await;
    }
    replace(&edge, "cert.pem", &old);
    assert_eq!(certificate_of(&Client::connect(&edge).await), first);

    replace(&edge, "cert.pem", &new);
    let key = made.signing_key.serialize_pem();
    replace(&edge, "cert-key.pem", key.as_bytes());
    reload(&edge, "certificate", "ok", 1).await;
    // The client trusts what lies in the data directory, so the handshake itself proves the new one.
    let newcomer = Client::login(&edge, 3, 33).await;
    assert_eq!(certificate_of(&newcomer), made.cert.der().to_vec());
    a_message_passes(&mut one, &mut two).await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections() {
    certificates_are_replaced("quinn").await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_of_the_own_engine() {
    certificates_are_replaced("lean").await;
}

/// The answer to a Hello.
async fn answer(edge: &Edge, hello: Hello) -> Result<Bytes, Option<ErrorCode>> {
    let mut client = Client::try_connect(edge, ALPN).await.expect("a connection");
    client.say(client_frame::Body::Hello(hello)).await;
    match soon("an answer", client.try_next()).await {
        Ok(Expect::Welcome(welcome)) => Ok(welcome.resume_token),
        Ok(Expect::Error(error)) => Err(Some(error.code())),
        Ok(other) => panic!("{other:?}"),
        Err(quinn::ConnectionError::ApplicationClosed(close)) => {
            Err(ErrorCode::from_close_code(close.error_code.into_inner()))
        }
        Err(error) => panic!("{error}"),
    }
}

fn with_resume(edge: &Edge, token: &Bytes, counter: u64) -> Hello {
    Hello {
        credential: Some(hello::Credential::ResumeToken(token.clone())),
        connect_counter: counter,
        ..Client::hello(edge, 1, 11)
    }
}

#[tokio::test]
async fn t14_resume_keys_change_without_a_storm_of_logins() {
    let edge = Edge::start();
    let token = answer(&edge, Client::hello(&edge, 1, 11)).await;
    let token = token.expect("a Welcome");
    let old = read(&edge, "resume.key");

    // A new key in front: old tokens are good as long as their key is in the file.
    replace(&edge, "resume.key", &[&[7; 32][..], &old].concat());
    reload(&edge, "resume_keys", "ok", 1).await;
    let fresh = answer(&edge, with_resume(&edge, &token, 100)).await;
    let fresh = fresh.expect("the old token is good");

    replace(&edge, "resume.key", b"damaged");
    reload(&edge, "resume_keys", "failed", 1).await;
    let again = answer(&edge, with_resume(&edge, &token, 101)).await;
    assert!(again.is_ok(), "{again:?}");

    replace(&edge, "resume.key", &[7; 32]);
    reload(&edge, "resume_keys", "ok", 2).await;
    let refused = answer(&edge, with_resume(&edge, &token, 102)).await;
    assert_eq!(refused, Err(Some(ErrorCode::TokenInvalid)));
    let taken = answer(&edge, with_resume(&edge, &fresh, 103)).await;
    assert!(taken.is_ok(), "{taken:?}");
}

#[tokio::test]
async fn other_keys_may_sign_tokens() {
    let edge = Edge::start();
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    let hello = Client::hello(&edge, 3, 33);
    let own = read(&edge, "jwks.json");

    replace(&edge, "jwks.json", b"{}");
    reload(&edge, "token_keys", "failed", 1).await;
    assert!(answer(&edge, hello.clone()).await.is_ok());

    // The keys of another service, which did not sign this one's tokens.
    let stranger = Edge::start();
    replace(&edge, "jwks.json", &read(&stranger, "jwks.json"));
    reload(&edge, "token_keys", "ok", 1).await;
    let theirs = Client::hello(&stranger, 4, 44);
    assert!(answer(&edge, theirs).await.is_ok());
    let refused = answer(&edge, hello.clone()).await;
    assert_eq!(refused, Err(Some(ErrorCode::TokenInvalid)));

    replace(&edge, "jwks.json", &own);
    reload(&edge, "token_keys", "ok", 2).await;
    assert!(answer(&edge, hello).await.is_ok());
    a_message_passes(&mut one, &mut two).await;
}

fn age(path: &Path, age: Duration) {
    let file = std::fs::File::options().write(true).open(path);
    let at = SystemTime::now() - age;
    file.expect("it is there").set_modified(at).expect("set");
}

/// Ticket keys that are a day old when the server starts, and some that become so while it runs.
#[tokio::test]
async fn t14_ticket_keys_are_rotated_by_the_clock() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let mut edge = Edge::start();
    let first = read(&edge, "tickets.key");
    assert_eq!(first.len(), 32);
    edge.kill();
    age(&edge.data.join("tickets.key"), DAY);
    edge.restart();
    edge.metric_reaches("roadstead_ticket_rotations_total", "", 1)
        .await;
    let second = read(&edge, "tickets.key");
    assert_eq!((second.len(), &second[32..]), (64, &first[..]));

    edge.kill();
    age(&edge.data.join("tickets.key"), DAY - Duration::from_secs(2));
    edge.restart();
    edge.metric_reaches("roadstead_ticket_rotations_total", "", 1)
        .await;
    let third = read(&edge, "tickets.key");
    assert_eq!((third.len(), &third[32..]), (96, &second[..]));

    // A file that is damaged is not made worse, and the keys in force go on.
    replace(&edge, "tickets.key", b"damaged");
    reload(&edge, "ticket_keys", "failed", 1).await;
    assert_eq!(read(&edge, "tickets.key"), b"damaged");
    Client::login(&edge, 1, 11).await;
}
