//! A store moves from one data directory to another by `roadstead store export | import`.

mod support;

use std::path::Path;

use bytes::Bytes;
use support::edge::roadstead;
use support::{Client, Edge, chat};

/// What the command says, or how it fails.
fn store(verb: &str, file: &Path, options: &[&str]) -> Result<String, String> {
    let mut command = roadstead();
    command.args(["store", verb]).arg(file).args(options);
    let output = command.output().expect("roadstead runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

/// What follows the verb: keys, bytes, checksum.
fn summary(said: &str) -> &str {
    said.split_once(' ').expect("two parts").1
}

/// The directory without its store: certificate and keys.
fn copy_keys(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a file has a name");
            std::fs::copy(&path, to.join(name)).expect("copies");
        }
    }
}

/// R3: whoever held a cursor resynchronises and finds what it had not acknowledged; numbers that were
/// used stay used (R12).
#[tokio::test]
async fn r3_clients_resynchronise_after_a_move() {
    let mut edge = Edge::start();
    let mut two = Client::login(&edge, 2, 22).await;
    let mut one = Client::login(&edge, 1, 11).await;
    one.message(chat(1, 2), b"acknowledged").await;
    one.result().await;
    let cursor = two.deliver().await.cursor;
    two.ack(cursor.clone()).await;
    one.message(chat(1, 2), b"waiting").await;
    let before = one.result().await;
    two.deliver().await;

    let files = tempfile::tempdir().expect("a directory");
    let export = files.path().join("store.export");
    let source = edge.data.display().to_string();
    let refused = store("export", &export, &["--data", &source]).expect_err("it runs");
    assert!(refused.contains("in use"), "{refused}");
    assert_eq!(edge.terminate().code(), Some(0));
    let exported = store("export", &export, &["--data", &source]).expect("exports");
    store("export", &export, &["--data", &source]).expect_err("the file is there");

    let target = files.path().join("data");
    std::fs::create_dir(&target).expect("a directory");
    copy_keys(&edge.data, &target);
    let options = ["--data", &target.display().to_string()];
    let imported = store("import", &export, &options).expect("imports");
    assert_eq!(summary(&imported), summary(&exported));
    let again = store("import", &export, &options).expect_err("not empty");
    assert!(again.contains("users"), "{again}");

    let edge = Edge::start_on(&target, None, "", &[]);
    let (mut two, welcome) = Client::resume(&edge, 2, 22, 2, cursor).await;
    assert!(welcome.resync);
    let deliver = two.deliver().await;
    assert_eq!(&deliver.envelope.expect("one").payload[..], b"waiting");
    let (mut one, _) = Client::resume(&edge, 1, 11, 2, Bytes::new()).await;
    one.message_numbered(2, chat(1, 2), b"waiting").await;
    let repeated = one.result().await;
    assert_eq!(repeated.position, before.position, "the first answer");
    one.message_numbered(3, chat(1, 2), b"new").await;
    assert!(one.result().await.position > before.position);
    let deliver = two.deliver().await;
    assert_eq!(&deliver.envelope.expect("one").payload[..], b"new");
}
