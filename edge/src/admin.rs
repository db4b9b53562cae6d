//! The admin HTTP: `/metrics`, `/healthz`, `/readyz`, `/debug/memory`.

mod connections;
mod guard;
mod sample;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware, routing};
use roadstead_net::Mailbox;
use roadstead_store::Health;
use roadstead_store::embedded::{Count, ReadCounters};
use serde_json::json;

use crate::log::Log;
use crate::memory::Ceiling;
use crate::metrics::{self, ShardMetrics, Text};
use crate::reload;
use crate::store::Handle;
use crate::worker::Message;

pub(crate) use connections::{CONNECTIONS_MAX, Counts, serve};
pub(crate) use guard::{Guard, is_host};
pub(crate) use sample::Sample;

/// What the handlers read.
pub(crate) struct Admin {
    pub(crate) shards: Vec<Arc<ShardMetrics>>,
    pub(crate) net: Vec<Arc<roadstead_net::Counters>>,
    pub(crate) ceiling: Arc<Ceiling>,
    pub(crate) store: Handle,
    pub(crate) draining: AtomicBool,
    pub(crate) mailboxes: Vec<Mailbox<Message>>,
    pub(crate) reloads: Arc<reload::Counts>,
    pub(crate) log: Log,
    pub(crate) udp_port: u16,
    pub(crate) connections: Arc<Counts>,
    pub(crate) sample: Sample,
    pub(crate) guard: Arc<Guard>,
}

pub(crate) fn router(admin: Arc<Admin>) -> Router {
    let check = middleware::from_fn_with_state(admin.guard.clone(), guard::check);
    Router::new()
        .route("/metrics", routing::get(metrics))
        .route("/healthz", routing::get(health))
        .route("/readyz", routing::get(ready))
        .route("/debug/memory", routing::get(memory))
        .layer(check)
        .with_state(admin)
}

/// The process is alive. Whether it should get traffic is [`ready`]'s to say.
async fn health() -> impl IntoResponse {
    Json(json!({ "status": "ok", "pid": std::process::id() }))
}

/// Whether new sessions are welcome here: the store commits, there is memory, and no drain has begun.
async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (code, body) = if admin.draining.load(Ordering::Relaxed) {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "ready": false, "reason": "draining" }),
        )
    } else {
        let reason = match admin.store.health() {
            Health::Ready if admin.ceiling.is_reached() => "memory: the ceiling is reached".into(),
            Health::Ready => return (StatusCode::OK, Json(json!({ "ready": true }))),
            Health::Full => "store: the disk is nearly full, and messages are refused".into(),
            Health::Failed { error, .. } => format!("store: {error}"),
            Health::Fenced => "store: another process has taken over this node's number".into(),
            Health::Stopped => "store: stopped".into(),
        };
        (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "ready": false, "reason": reason }),
        )
    };
    (code, Json(body))
}

/// Where the bytes are: a table, or JSON for who accepts only that. At most a second old.
async fn memory(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let Some(report) = admin.sample.get(&admin).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "a shard is busy").into_response();
    };
    let wanted = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
    if wanted == Some(b"application/json") {
        Json(report.json()).into_response()
    } else {
        report.text().into_response()
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let mut text = Text::default();
    text.family("process_pid", "gauge", "Process id.");
    text.sample(&[], std::process::id().into());
    metrics::write_shards(&mut text, &admin.shards);
    write_net(&mut text, &admin.net);
    write_memory(&mut text, &admin.ceiling);
    admin.reloads.write(&mut text);
    admin.connections.write(&mut text);
    admin.guard.write(&mut text);
    let help = "Times every shard walked over its connections for /debug/memory.";
    text.family("roadstead_memory_accounts", "counter", help);
    text.sample(&[], admin.sample.taken());
    let help = "Lines of the log dropped because standard error was not read.";
    text.family("roadstead_log_dropped", "counter", help);
    text.sample(&[], admin.log.dropped());
    write_store(&mut text, &admin.store);
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        text.finish(),
    )
}

fn write_net(text: &mut Text, net: &[Arc<roadstead_net::Counters>]) {
    let snapshots: Vec<_> = net.iter().map(|counters| counters.snapshot()).collect();
    let Some(first) = snapshots.first() else {
        return;
    };
    for (row, (name, _)) in first.iter().enumerate() {
        let kind = if matches!(*name, "half_open" | "connections") {
            "gauge"
        } else {
            "counter"
        };
        let help = name.replace('_', " ");
        text.family(&format!("roadstead_net_{name}"), kind, &help);
        for (shard, snapshot) in snapshots.iter().enumerate() {
            text.sample(&[("shard", &shard.to_string())], snapshot[row].1);
        }
    }
}

fn write_memory(text: &mut Text, ceiling: &Ceiling) {
    let gauges = [
        ("used", "Memory that cannot be dropped.", ceiling.used()),
        (
            "ceiling",
            "Above it new sessions are refused.",
            ceiling.bytes(),
        ),
    ];
    for (name, help, bytes) in gauges {
        text.family(&format!("roadstead_memory_{name}_bytes"), "gauge", help);
        text.sample(&[], bytes);
    }
}

fn write_store(text: &mut Text, store: &Handle) {
    text.family(
        "roadstead_store_ready",
        "gauge",
        "1 while the store commits.",
    );
    text.sample(&[], u64::from(matches!(store.health(), Health::Ready)));
    let depths = store.queue_depths();
    text.family(
        "roadstead_store_queued",
        "gauge",
        "What waits for the store.",
    );
    for (kind, depth) in [
        ("send", depths.sends),
        ("other", depths.others),
        ("read", depths.reads),
    ] {
        text.sample(&[("kind", kind)], u64::try_from(depth).unwrap_or(u64::MAX));
    }
    match store {
        Handle::Embedded(store) => write_embedded(text, store),
        #[cfg(feature = "foundationdb")]
        Handle::Foundation(store) => {
            for (name, value) in store.counters().snapshot() {
                let help = name.replace('_', " ");
                if let Some(name) = name.strip_suffix("_us") {
                    let family = format!("roadstead_store_{name}_seconds");
                    text.family(&family, "counter", "Time spent in commits.");
                    text.seconds(&[], value);
                    continue;
                }
                text.family(&format!("roadstead_store_{name}"), "counter", &help);
                text.sample(&[], value);
            }
        }
    }
}

fn write_embedded(text: &mut Text, store: &roadstead_store::Handle) {
    let commit = &store.counters().commit;
    let counters = [
        ("commits", "Commits, each with one sync.", &commit.commits),
        ("writes", "Keys written.", &commit.writes),
        (
            "written_bytes",
            "Bytes of keys and values written.",
            &commit.written_bytes,
        ),
        ("sends", "Messages committed.", &commit.sends),
        (
            "sends_repeated",
            "Sends answered with their first answer.",
            &commit.sends_repeated,
        ),
        ("opens", "Devices opened.", &commit.opens),
        ("flushes", "Acknowledgements carried out.", &commit.flushes),
        ("read_marks", "Read marks carried out.", &commit.read_marks),
        ("inbox_checks", "Inboxes counted.", &commit.checks),
        (
            "deadline_passed",
            "Sends dropped past their deadline.",
            &commit.deadline_passed,
        ),
        (
            "unavailable",
            "Commands refused while the engine had failed.",
            &commit.unavailable,
        ),
        (
            "refused",
            "Commands refused for any other reason.",
            &commit.refused,
        ),
        (
            "without_room",
            "Sends refused because the disk is nearly full.",
            &commit.without_room,
        ),
        (
            "own_errors",
            "Commands that failed alone: what they read is damaged, or they write too much.",
            &commit.own_errors,
        ),
        ("cache_hits", "Values found in memory.", &commit.cache_hits),
        (
            "cache_misses",
            "Values read from the database.",
            &commit.cache_misses,
        ),
        (
            "failures",
            "Commits that failed: the engine was reopened.",
            &commit.failures,
        ),
        ("expired", "Entries removed by age.", &commit.expired),
    ];
    for (name, help, count) in counters {
        text.family(&format!("roadstead_store_{name}"), "counter", help);
        text.sample(&[], count.get());
    }
    let help = "Time spent in commits.";
    text.family("roadstead_store_commit_seconds", "counter", help);
    text.seconds(&[], commit.commit_us.get());
    write_readers(text, store);
}

fn write_readers(text: &mut Text, store: &roadstead_store::Handle) {
    type Pick = fn(&ReadCounters) -> &Count;
    let counters: [(&str, &str, Pick); 3] = [
        ("reads", "Inboxes read.", |reader| &reader.reads),
        ("read_entries", "Entries read.", |reader| {
            &reader.read_entries
        }),
        ("read_bytes", "Bytes read.", |reader| &reader.read_bytes),
    ];
    for (name, help, pick) in counters {
        text.family(&format!("roadstead_store_{name}"), "counter", help);
        for (reader, counters) in store.counters().readers.iter().enumerate() {
            text.sample(&[("reader", &reader.to_string())], pick(counters).get());
        }
    }
    let help = "Time spent reading.";
    text.family("roadstead_store_read_seconds", "counter", help);
    for (reader, counters) in store.counters().readers.iter().enumerate() {
        text.seconds(&[("reader", &reader.to_string())], counters.read_us.get());
    }
}
