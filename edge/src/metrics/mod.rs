//! What the workers publish, and how `/metrics` shows it.

mod histogram;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roadstead::{CountByCode, Counters};
use roadstead_net::CloseReason;
use roadstead_proto::ErrorCode;
use roadstead_proto::error::CODES_MAX;

pub(crate) use histogram::Histogram;
use histogram::Published;
pub(crate) use text::Text;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Number(AtomicU64);

impl Number {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Only for the one writer: no read-modify-write is needed.
    pub(crate) fn add(&self, value: u64) {
        self.set(self.get() + value);
    }
}

/// Why connections ended, as the transport tells it.
const CLOSE_NAMES: [&str; 10] = [
    "application",
    "local",
    "alpn",
    "version_mismatch",
    "tls",
    "transport",
    "idle_timeout",
    "handshake_timeout",
    "stateless_reset",
    "exhausted",
];

/// One shard's numbers.
#[derive(Debug, Default)]
pub(crate) struct ShardMetrics {
    core: CoreMetrics,
    closed: [Number; CLOSE_NAMES.len()],
    pub(crate) closed_unread: Number,
    pub(crate) streams_aborted: Number,
    pub(crate) reads_paused: Number,
    logins_by_token: Number,
    logins_by_resume: Number,
    login_micros: Number,
    outbox_waiting: Number,
    held_bytes: Number,
    pub(crate) shed: Number,
    pub(crate) refused_memory: Number,
    pub(crate) refused_address: Number,
    pub(crate) addresses_forgotten: Number,
    /// From the request of a commit to its answer.
    pub(crate) send_latency: Histogram,
    /// The same of inbox reads.
    pub(crate) read_latency: Histogram,
}

/// A number for each error code.
#[derive(Debug)]
struct NumberByCode([Number; CODES_MAX]);

impl Default for NumberByCode {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Number::default()))
    }
}

impl NumberByCode {
    fn publish(&self, counts: &CountByCode) {
        for (published, count) in self.0.iter().zip(counts.iter()) {
            published.set(count);
        }
    }

    fn write(&self, text: &mut Text, shard: usize) {
        let counts = self.0.iter().map(Number::get).enumerate();
        for (code, count) in counts.filter(|(_, count)| *count > 0) {
            let code = ErrorCode::from_close_code(code as u64).unwrap_or_default();
            let labels = [("shard", &*shard.to_string()), ("code", code.as_str_name())];
            text.sample(&labels, count);
        }
    }
}

macro_rules! core_metrics {
    ($($kind:ident $name:ident $help:literal,)+) => {
        /// The core's counters, published.
        #[derive(Debug, Default)]
        struct CoreMetrics {
            $($name: Number,)+
            sends_refused_by_code: NumberByCode,
            closed_by_code: NumberByCode,
            deliver: Published,
        }

        impl CoreMetrics {
            fn publish(&self, counters: &Counters) {
                $(self.$name.set(counters.$name);)+
                self.sends_refused_by_code.publish(&counters.sends_refused_by_code);
                self.closed_by_code.publish(&counters.closed_by_code);
                self.deliver.publish(&counters.deliver);
            }
        }

        fn write_core(text: &mut Text, shards: &[Arc<ShardMetrics>]) {
            $(
                let kind = stringify!($kind);
                text.family(concat!("roadstead_", stringify!($name)), kind, $help);
                for (shard, metrics) in shards.iter().enumerate() {
                    text.sample(&[("shard", &shard.to_string())], metrics.core.$name.get());
                }
            )+
        }
    };
}

core_metrics! {
    gauge sessions "Open connections, whatever their state.",
    gauge sessions_active "Sessions that have had their Welcome.",
    counter welcomes "Welcomes sent.",
    counter frames_in "Frames received.",
    counter frames_out "Frames sent.",
    counter sends_committed "Messages committed.",
    counter sends_repeated "Sends answered with their first answer.",
    counter sends_refused "Sends refused.",
    counter sends_rate_limited "Of these, because the user had sent too much.",
    counter sends_chat_busy "Of these, because the user had sent too much to one other.",
    counter send_rates_forgotten "Users counted anew too early, because the table of their rates was full.",
    counter delivered "Inbox entries delivered.",
    counter delivered_without_read "Of these, without a read of the store.",
    counter inbox_reads "Inbox reads.",
    counter flushes "Acknowledgements flushed to the store.",
    counter read_marks "Read marks.",
    counter read_marks_rate_limited "Times that a read mark waited for its user's rate.",
    counter read_marks_dropped "Read marks dropped at the end of a session: more than its user may make, and borrow.",
    counter acks_of_other_generation "Acks of another store generation.",
    counter replaced "Sessions that a later connection of the device took over.",
    counter tokens_overtaken "Openings refused because their device had shown a later resume token.",
    counter typing_dropped "Typing frames above their rate.",
    counter store_requests_failed "Requests to the store that failed and may be repeated.",
    gauge sends_pending "Sends waiting for the store.",
    gauge send_bytes_pending "Bytes of their payloads.",
    gauge requests_pending "Requests waiting for the store.",
    gauge users "Users in the directory.",
    gauge session_bytes "Bytes of the table of sessions.",
    gauge directory_bytes "Bytes of the directory.",
}

impl ShardMetrics {
    pub(crate) fn publish(&self, counters: &Counters, outbox_waiting: usize, held_bytes: usize) {
        self.core.publish(counters);
        self.outbox_waiting
            .set(u64::try_from(outbox_waiting).unwrap_or(u64::MAX));
        self.held_bytes
            .set(u64::try_from(held_bytes).unwrap_or(u64::MAX));
    }

    /// Open connections, as published last.
    pub(crate) fn sessions(&self) -> u64 {
        self.core.sessions.get()
    }

    pub(crate) fn closed(&self, reason: &CloseReason) {
        let name = reason.name();
        if let Some(index) = CLOSE_NAMES.iter().position(|known| *known == name) {
            self.closed[index].add(1);
        }
    }

    pub(crate) fn login(&self, by_token: bool, took: Duration) {
        let logins = if by_token {
            &self.logins_by_token
        } else {
            &self.logins_by_resume
        };
        logins.add(1);
        self.login_micros
            .add(u64::try_from(took.as_micros()).unwrap_or(0));
    }
}

/// Everything the shards publish.
pub(crate) fn write_shards(text: &mut Text, shards: &[Arc<ShardMetrics>]) {
    write_core(text, shards);
    text.family(
        "roadstead_refused",
        "counter",
        "Sessions closed by the server, by error code.",
    );
    for (shard, metrics) in shards.iter().enumerate() {
        metrics.core.closed_by_code.write(text, shard);
    }
    text.family(
        "roadstead_sends_refused_by_code",
        "counter",
        "Sends refused, by error code.",
    );
    for (shard, metrics) in shards.iter().enumerate() {
        metrics.core.sends_refused_by_code.write(text, shard);
    }
    text.family(
        "roadstead_connections_closed",
        "counter",
        "Connections ended, by reason.",
    );
    for (shard, metrics) in shards.iter().enumerate() {
        for (reason, count) in CLOSE_NAMES.iter().zip(&metrics.closed) {
            text.sample(
                &[("shard", &shard.to_string()), ("reason", reason)],
                count.get(),
            );
        }
    }
    write_worker(text, shards);
    write_latency(text, shards);
}

fn write_worker(text: &mut Text, shards: &[Arc<ShardMetrics>]) {
    type Pick = fn(&ShardMetrics) -> &Number;
    let families: [(&str, &str, &str, Pick); 11] = [
        (
            "shed",
            "counter",
            "Sessions closed because the shard held too much for peers.",
            |m| &m.shed,
        ),
        (
            "refused_memory",
            "counter",
            "First packets of newcomers dropped at the memory ceiling, and sessions refused whose handshake was under way.",
            |m| &m.refused_memory,
        ),
        (
            "refused_address",
            "counter",
            "Connections refused because their address opened too many.",
            |m| &m.refused_address,
        ),
        (
            "addresses_forgotten",
            "counter",
            "Addresses counted anew too early, because the table of their rates was full.",
            |m| &m.addresses_forgotten,
        ),
        (
            "held_bytes",
            "gauge",
            "Incomplete frames, and what peers have not read.",
            |m| &m.held_bytes,
        ),
        (
            "closed_unread",
            "counter",
            "Sessions closed because the peer read nothing.",
            |m| &m.closed_unread,
        ),
        (
            "streams_aborted",
            "counter",
            "Sessions that the peer ended by RESET_STREAM or STOP_SENDING.",
            |m| &m.streams_aborted,
        ),
        (
            "reads_paused",
            "counter",
            "Times a session was not read because the store was behind.",
            |m| &m.reads_paused,
        ),
        (
            "logins_by_token",
            "counter",
            "Signed tokens checked.",
            |m| &m.logins_by_token,
        ),
        (
            "logins_by_resume",
            "counter",
            "Resume tokens checked.",
            |m| &m.logins_by_resume,
        ),
        (
            "outbox_waiting",
            "gauge",
            "Messages waiting for another shard's queue.",
            |m| &m.outbox_waiting,
        ),
    ];
    for (name, kind, help, pick) in families {
        text.family(&format!("roadstead_{name}"), kind, help);
        for (shard, metrics) in shards.iter().enumerate() {
            text.sample(&[("shard", &shard.to_string())], pick(metrics).get());
        }
    }
    let help = "Time spent checking signed tokens and resume tokens.";
    text.family("roadstead_login_seconds", "counter", help);
    for (shard, metrics) in shards.iter().enumerate() {
        text.seconds(&[("shard", &shard.to_string())], metrics.login_micros.get());
    }
}

fn write_latency(text: &mut Text, shards: &[Arc<ShardMetrics>]) {
    type Pick = fn(&ShardMetrics) -> &Histogram;
    let families: [(&str, &str, Pick); 2] = [
        (
            "roadstead_commit_seconds",
            "From the request of a commit to its answer.",
            |m| &m.send_latency,
        ),
        (
            "roadstead_inbox_read_seconds",
            "From the request of an inbox read to its answer.",
            |m| &m.read_latency,
        ),
    ];
    for (name, help, pick) in families {
        text.family(name, "histogram", help);
        for (shard, metrics) in shards.iter().enumerate() {
            let (histogram, shard) = (pick(metrics), shard.to_string());
            let sum = histogram.sum_seconds();
            text.histogram(&[("shard", &shard)], histogram.cumulative(), sum);
        }
    }
    text.family(
        "roadstead_deliver_seconds",
        "histogram",
        "From the acceptance of a message to its Deliver, for sessions that wait for it.",
    );
    for (shard, metrics) in shards.iter().enumerate() {
        let (histogram, shard) = (&metrics.core.deliver, shard.to_string());
        let sum = histogram.sum_seconds();
        text.histogram(&[("shard", &shard)], histogram.cumulative(), sum);
    }
}
