//! Certificates that are past their end, near it, or no certificates: the operator is told.

mod support;

use std::path::Path;

use rustix::process::Signal;
use support::Edge;

/// Writes a certificate with its key that is good between two days.
fn put(data: &Path, from: (i32, u8, u8), until: (i32, u8, u8)) {
    let names = ["localhost", "127.0.0.1"].map(String::from);
    let mut params = rcgen::CertificateParams::new(names).expect("names");
    params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
    params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&key).expect("signed");
    std::fs::write(data.join("cert.pem"), made.pem()).expect("written");
    std::fs::write(data.join("cert-key.pem"), key.serialize_pem()).expect("written");
}

/// The log, whatever it is coloured with.
fn log(edge: &mut Edge) -> String {
    String::from_utf8_lossy(&edge.whole_log()).into_owned()
}

#[tokio::test]
async fn fd10_an_expired_certificate_is_said_at_start_and_at_a_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), (2020, 1, 1), (2021, 2, 3));
    let mut edge = Edge::start_on(folder.path(), None, "", &["--shards", "1"]);
    let name = "roadstead_certificate_expires_seconds";
    assert_eq!(edge.metric(name, "use=\"clients\"").await, 1_612_310_400);

    // One that is good is not spoken of, and the gauge is its own.
    put(folder.path(), (2020, 1, 1), (2049, 1, 1));
    edge.signal(Signal::HUP);
    edge.metric_reaches(name, "use=\"clients\"", 2_493_072_000)
        .await;
    put(folder.path(), (2020, 1, 1), (2022, 3, 4));
    edge.signal(Signal::HUP);
    let labels = "file=\"certificate\",result=\"ok\"";
    edge.metric_reaches("roadstead_reloads_total", labels, 2)
        .await;
    let log = log(&mut edge);
    assert_eq!(log.matches("the certificate has expired").count(), 2);
    assert!(log.contains("2021-02-03T00:00:00Z"), "{log}");
    assert!(log.contains("2022-03-04T00:00:00Z"), "{log}");
}

#[tokio::test]
async fn fd10_a_good_certificate_is_not_spoken_of() {
    let mut edge = Edge::start_with("", &["--shards", "1"]);
    let log = log(&mut edge);
    assert!(!log.contains("the certificate"), "{log}");
}

/// What a server says that can not start with these two files.
fn refused(data: &Path, chain: &[u8], key: &[u8]) -> String {
    std::fs::write(data.join("cert.pem"), chain).expect("written");
    std::fs::write(data.join("cert-key.pem"), key).expect("written");
    let mut serve = support::edge::roadstead();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let output = serve.arg("--data").arg(data).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn fp2_what_is_wrong_with_a_certificate_is_said_by_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    put(data, (2020, 1, 1), (2049, 1, 1));
    let read = |name: &str| std::fs::read(data.join(name)).expect("it is there");
    let (chain, key) = (read("cert.pem"), read("cert-key.pem"));
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let marked = [b"\xef\xbb\xbf", &chain[..]].concat();
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (chain, key, file, words) in [
        (
            &chain[..],
            other.as_bytes(),
            "cert-key.pem",
            "is not the key of",
        ),
        (&chain, b"", "cert-key.pem", "holds no private key"),
        (&chain, encrypted, "cert-key.pem", "is encrypted"),
        (b"", &key, "cert.pem", "holds no certificate"),
        (&key, &key, "cert.pem", "holds no certificate"),
        (&marked, &key, "cert.pem", "begins with a byte order mark"),
    ] {
        let error = refused(data, chain, key);
        let said = format!("{} {words}", data.join(file).display());
        assert!(error.contains(&said), "{said}: {error}");
    }
}
