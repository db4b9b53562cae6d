//! A disk that fails under a running edge: it does not lie and it does not die.

mod support;

use roadstead_faulty_disk::SmallDisk;
use roadstead_proto::ErrorCode;
use support::{Client, Edge, Expect, chat, soon};

/// R10: sends fail retryably, readiness goes red, sessions stay; with room again everything goes on, and
/// what was answered is there.
#[tokio::test]
#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
async fn r10_a_full_disk_is_survived() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(directory.path(), 6).expect("a directory") else {
        eprintln!("skipped: not allowed to mount a small disk");
        return;
    };
    let edge = Edge::start_on(disk.path(), None, "", &[]);
    Client::login(&edge, 2, 22).await.leave().await;
    let mut one = Client::login(&edge, 1, 11).await;
    let payload = vec![7; 16 * 1024];
    let mut answered = 0;
    let refused = loop {
        one.message(chat(1, 2), &payload).await;
        match one.next().await {
            Expect::SendResult(_) => answered += 1,
            Expect::Error(error) => break error,
            other => panic!("{other:?}"),
        }
        assert!(answered < 2_000, "the disk is never full");
    };
    assert!(answered > 0);
    assert_eq!(
        (refused.code(), refused.retryable),
        (ErrorCode::StoreUnavailable, true)
    );
    becomes_ready(&edge, 503).await;
    assert_eq!(edge.get("/healthz").await.0, 200, "alive, though not ready");

    disk.remount("size=256m").expect("it is allowed");
    becomes_ready(&edge, 200).await;
    let again = async {
        loop {
            one.message_numbered(refused.number, chat(1, 2), &payload)
                .await;
            match one.try_next().await.expect("the session was kept") {
                Expect::SendResult(result) => return result.number,
                Expect::Error(error) => assert!(error.retryable, "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(soon("the refused send", again).await, refused.number);
    let mut two = Client::login(&edge, 2, 22).await;
    for _ in 0..=answered {
        let deliver = two.deliver().await;
        two.ack(deliver.cursor).await;
    }
}

async fn becomes_ready(edge: &Edge, status: u16) {
    let changed = async {
        while edge.get("/readyz").await.0 != status {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon(&format!("/readyz answering {status}"), changed).await;
}
