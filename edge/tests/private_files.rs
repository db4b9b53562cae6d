//! What the server writes is its owner's alone, whatever the umask of the shell that started it.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::edge::roadstead_after;
use support::{Client, Edge, chat};

/// A shell that leaves everything to everybody, and a log without colours.
const OPEN_HANDED: &str = "umask 000 && export NO_COLOR=1";

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    found.permissions().mode() & 0o777
}

/// A folder and all that is in it.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            paths.extend(tree(&entry.expect("an entry").path()));
        }
    }
    paths
}

/// What others can read, write or look into.
fn open_to_others(path: &Path) -> Vec<PathBuf> {
    let mut paths = tree(path);
    paths.retain(|path| mode(path) & 0o077 != 0);
    paths
}

/// Puts a message into the store that nobody takes out.
async fn keep_a_message(edge: &Edge) {
    Client::login(edge, 2, 22).await.leave().await;
    let mut one = Client::login(edge, 1, 11).await;
    one.message(chat(1, 2), b"nobody else's business").await;
    one.result().await;
    one.leave().await;
}

#[tokio::test]
async fn fc4_store_and_keys_are_private_whatever_the_umask() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("made/by/the/server");
    let mut edge = Edge::start_after(OPEN_HANDED, &data, &[]);
    keep_a_message(&edge).await;
    edge.terminate();
    // Again: the log is moved into tables.
    edge.restart();
    keep_a_message(&edge).await;
    assert!(tree(&data).iter().any(|path| path.ends_with("tables")));
    assert_eq!(
        open_to_others(&folder.path().join("made")),
        [] as [PathBuf; 0]
    );
}

#[tokio::test]
async fn fc4_what_others_could_read_is_made_private_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut edge = Edge::start_after(OPEN_HANDED, &data, &[]);
    keep_a_message(&edge).await;
    edge.terminate();
    for path in tree(&data) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
    }
    edge.restart();
    keep_a_message(&edge).await;
    let log = String::from_utf8(edge.whole_log()).expect("text");

    let named = |path: &Path, text: &str| {
        let path = format!("path={}", path.display());
        let mut lines = log.lines();
        let named =
            lines.any(|line| line.contains("WARN") && line.contains(&path) && line.contains(text));
        assert!(named, "{path}: {text}\n{log}");
    };
    named(&data, "others can look into the data directory");
    for secret in ["store", "token-key.pem", "resume.key", "tickets.key"] {
        named(&data.join(secret), "others had access");
    }
    // The directory may be the operator's, and clients are given the public ones.
    let mut left = open_to_others(&data);
    left.sort();
    let expected = ["", "cert.pem", "jwks.json"].map(|name| data.join(name));
    assert_eq!(left, expected);
}

#[tokio::test]
async fn fc4_a_key_of_the_operators_that_others_can_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
    fs::write(&certificate, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let config = format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\n",
        certificate.display().to_string(),
        key.display().to_string()
    );
    let warned = |mode: u32| {
        fs::set_permissions(&key, Permissions::from_mode(mode)).expect("it is ours");
        let mut edge = Edge::start_with(&config, &[]);
        let log = String::from_utf8(edge.whole_log()).expect("text");
        let mut lines = log.lines();
        lines.any(|line| line.contains("WARN") && line.contains("tls.key"))
    };
    assert!(warned(0o644));
    assert_eq!(mode(&key), 0o644, "left as it is");
    assert!(!warned(0o600));
}

#[tokio::test]
async fn fc4_an_export_is_private() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut edge = Edge::start_after(OPEN_HANDED, &data, &[]);
    keep_a_message(&edge).await;
    edge.terminate();
    let file = folder.path().join("export");
    // What a crash has left of an earlier one.
    let partial = folder.path().join("export.partial");
    fs::write(&partial, b"half").expect("written");
    fs::set_permissions(&partial, Permissions::from_mode(0o666)).expect("it is ours");
    let store = |what: &str, data: &Path| {
        let output = roadstead_after(OPEN_HANDED)
            .args(["store", what, "--data"])
            .args([data, &file])
            .output()
            .expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
    };
    store("export", &data);
    assert_eq!(mode(&file), 0o600);
    let copy = folder.path().join("copy");
    store("import", &copy);
    assert_eq!(open_to_others(&copy), [] as [PathBuf; 0]);
}
