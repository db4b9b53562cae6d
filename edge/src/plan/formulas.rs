//! The calculation. Everything is per second in the busiest hour unless its name says otherwise.

use super::inputs::Plan;
use super::step::{Step, step};
use crate::capacity::{self, Measured};
use crate::config::QuicEngine;
use crate::memory::DEFAULT_PERCENT;

/// Sections of a plan with their steps.
pub(crate) struct Calculation {
    pub(crate) measured: Vec<Measured>,
    pub(crate) sections: Vec<(&'static str, Vec<Step>)>,
}

/// The costs that depend on the engine, and the others.
fn measured(engine: QuicEngine) -> Vec<Measured> {
    let (session, message, heartbeat) = match engine {
        QuicEngine::Quinn => (
            capacity::SESSION_BYTES_QUINN,
            capacity::MESSAGE_CPU_QUINN,
            capacity::HEARTBEAT_CPU_QUINN,
        ),
        QuicEngine::Lean => (
            capacity::SESSION_BYTES_LEAN,
            capacity::MESSAGE_CPU_LEAN,
            capacity::HEARTBEAT_CPU_LEAN,
        ),
    };
    vec![
        session,
        message,
        capacity::HANDSHAKE_CPU,
        heartbeat,
        capacity::HEARTBEAT_PACKETS,
        capacity::HEARTBEAT_BYTES,
        capacity::MESSAGE_PACKETS,
        capacity::MESSAGE_BYTES,
        capacity::PACKET_BYTES,
        capacity::HANDSHAKE_BYTES,
        capacity::ENTRY_BYTES,
        capacity::ANSWER_BYTES,
        capacity::FDB_WRITES,
        capacity::FDB_PROCESSES,
    ]
}

pub(crate) fn calculate(plan: &Plan) -> Calculation {
    let measured = measured(plan.quic_engine);
    let load = Load::of(plan);
    let hosts = Hosts::of(plan, &load, &measured);
    let sections = vec![
        ("Load", load.steps.clone()),
        ("A host", hosts.host_steps),
        ("All hosts", hosts.steps),
        (
            "Network of a host",
            network(plan, &load, hosts.sessions_per_host, &measured),
        ),
        ("Store", store(plan, &load, &measured)),
    ];
    Calculation { measured, sections }
}

/// A measured number by its name.
fn cost(measured: &[Measured], name: &str) -> f64 {
    let found = measured.iter().find(|it| it.name == name);
    found.expect("the formulas name what is measured").value
}

struct Load {
    steps: Vec<Step>,
    sessions: f64,
    session_messages_s: f64,
    session_heartbeats_s: f64,
    session_connects_s: f64,
    deliveries: f64,
    messages_s: f64,
}

impl Load {
    fn of(plan: &Plan) -> Self {
        let Plan {
            users,
            online_share,
            devices,
            messages_per_day,
            peak_factor,
            heartbeat_s,
            connects_per_day,
            ..
        } = *plan;
        let mut steps = Vec::new();
        step!(steps, sessions ["sessions"] from (users, online_share):
            users * online_share,
            "open at once");
        step!(steps, messages_s ["messages/s"] from (messages_per_day, peak_factor):
            messages_per_day / 86_400.0 * peak_factor,
            "sent in the busiest hour");
        step!(steps, deliveries ["deliveries"] from (devices):
            2.0 * devices - 1.0,
            "of a message: every device of the recipient, the sender's others");
        step!(steps, session_messages_s ["messages/s"] from (messages_s, sessions):
            messages_s / sessions,
            "per session");
        step!(steps, session_heartbeats_s ["heartbeats/s"] from (heartbeat_s):
            1.0 / heartbeat_s,
            "per session (T10)");
        step!(steps, session_connects_s ["handshakes/s"] from (connects_per_day, peak_factor):
            connects_per_day / 86_400.0 * peak_factor,
            "per session");
        Self {
            steps,
            sessions,
            session_messages_s,
            session_heartbeats_s,
            session_connects_s,
            deliveries,
            messages_s,
        }
    }
}

struct Hosts {
    host_steps: Vec<Step>,
    steps: Vec<Step>,
    sessions_per_host: f64,
}

impl Hosts {
    #[allow(clippy::cast_precision_loss, reason = "megabytes and percents")]
    fn of(plan: &Plan, load: &Load, measured: &[Measured]) -> Self {
        let Plan {
            host_cores,
            host_ram_gib,
            host_sessions_max,
            cpu_share,
            spare_share,
            ..
        } = *plan;
        let Load {
            sessions,
            session_messages_s,
            session_heartbeats_s,
            session_connects_s,
            deliveries,
            ..
        } = *load;
        let session_bytes = cost(measured, "session_bytes");
        let message_cpu_us = cost(measured, "message_cpu_us");
        let heartbeat_cpu_us = cost(measured, "heartbeat_cpu_us");
        let handshake_cpu_us = cost(measured, "handshake_cpu_us");
        let ceiling_share = DEFAULT_PERCENT as f64 / 100.0;
        let shard_bytes = capacity::SHARD_BYTES as f64;

        let mut host = Vec::new();
        step!(host, session_memory_max ["bytes"] from (host_ram_gib, ceiling_share, host_cores,
             shard_bytes):
            host_ram_gib * 1_073_741_824.0 * ceiling_share - host_cores * shard_bytes,
            "left for sessions under the memory ceiling (memory_max_mib), a shard on each core");
        step!(host, sessions_by_memory ["sessions"] from (session_memory_max, session_bytes):
            (session_memory_max / session_bytes).floor().max(0.0),
            "that fit in it");
        step!(host, session_cpu_us ["us/s"] from (session_messages_s, deliveries, message_cpu_us,
             session_heartbeats_s, heartbeat_cpu_us, session_connects_s,
             handshake_cpu_us):
            session_messages_s * deliveries * message_cpu_us + session_heartbeats_s *
                heartbeat_cpu_us + session_connects_s * handshake_cpu_us,
            "CPU per session; a message with n deliveries is taken to cost n times one with one");
        step!(host, sessions_by_cpu ["sessions"] from (host_cores, cpu_share, session_cpu_us):
            (host_cores * 1_000_000.0 * cpu_share / session_cpu_us).floor(),
            "that the cores carry; linear in cores is assumed, two were measured");
        step!(host, sessions_per_host ["sessions"] from (sessions_by_memory, sessions_by_cpu,
             host_sessions_max):
            sessions_by_memory.min(sessions_by_cpu).min(host_sessions_max),
            "the least of the three");
        step!(host, host_memory_gib ["GiB"] from (sessions_per_host, session_bytes, host_cores,
             shard_bytes):
            (sessions_per_host * session_bytes + host_cores * shard_bytes) /
                1_073_741_824.0,
            "used by the process");
        step!(host, host_cpu_cores ["cores"] from (sessions_per_host, session_cpu_us):
            sessions_per_host * session_cpu_us / 1_000_000.0,
            "busy in the busiest hour");
        step!(host, storm_s ["s"] from (sessions_per_host, handshake_cpu_us, host_cores):
            sessions_per_host * handshake_cpu_us / 1_000_000.0 / host_cores,
            "until all sessions of a host are back when all come at once");

        let mut all = Vec::new();
        step!(all, hosts_needed ["hosts"] from (sessions, sessions_per_host):
            (sessions / sessions_per_host).ceil(),
            "that hold the sessions");
        step!(all, hosts ["hosts"] from (hosts_needed, spare_share):
            (hosts_needed * (1.0 + spare_share)).ceil(),
            "with spares");
        step!(all, ram_tib ["TiB"] from (hosts, host_ram_gib):
            hosts * host_ram_gib / 1_024.0,
            "RAM to buy");
        Self {
            host_steps: host,
            steps: all,
            sessions_per_host,
        }
    }
}

fn network(plan: &Plan, load: &Load, sessions_per_host: f64, measured: &[Measured]) -> Vec<Step> {
    let payload_bytes = plan.payload_bytes;
    let Load {
        session_messages_s,
        session_heartbeats_s,
        session_connects_s,
        deliveries,
        ..
    } = *load;
    let heartbeat_packets = cost(measured, "heartbeat_packets");
    let heartbeat_bytes = cost(measured, "heartbeat_bytes");
    let message_packets = cost(measured, "message_packets");
    let message_overhead_bytes = cost(measured, "message_overhead_bytes");
    let packet_header_bytes = cost(measured, "packet_header_bytes");
    let handshake_bytes = cost(measured, "handshake_bytes");
    let mut steps = Vec::new();
    step!(steps, host_messages_s ["deliveries/s"] from (sessions_per_host, session_messages_s,
         deliveries):
        sessions_per_host * session_messages_s * deliveries,
        "each with its share of the send, its acknowledgement and its receipts");
    step!(steps, host_heartbeats_s ["heartbeats/s"] from (sessions_per_host,
         session_heartbeats_s):
        sessions_per_host * session_heartbeats_s,
        "of silent sessions");
    step!(steps, host_connects_s ["handshakes/s"] from (sessions_per_host,
         session_connects_s):
        sessions_per_host * session_connects_s,
        "");
    step!(steps, host_packets_s ["packets/s"] from (host_messages_s, message_packets,
         host_heartbeats_s, heartbeat_packets):
        host_messages_s * message_packets + host_heartbeats_s * heartbeat_packets,
        "both ways together, handshakes (some ten packets each) left out");
    step!(steps, host_bytes_s ["bytes/s"] from (host_messages_s, message_overhead_bytes,
         payload_bytes, host_heartbeats_s, heartbeat_bytes, host_connects_s,
         handshake_bytes):
        host_messages_s * (message_overhead_bytes + 2.0 * payload_bytes)
            + host_heartbeats_s * heartbeat_bytes
            + host_connects_s * handshake_bytes,
        "payload of UDP, both ways together");
    step!(steps, host_mbit_s ["Mbit/s"] from (host_bytes_s, host_packets_s,
         packet_header_bytes):
        (host_bytes_s + host_packets_s * packet_header_bytes) * 8.0 / 1_000_000.0,
        "with IP and UDP headers, without Ethernet's");
    steps
}

fn store(plan: &Plan, load: &Load, measured: &[Measured]) -> Vec<Step> {
    let Plan {
        users,
        devices,
        messages_per_day,
        payload_bytes,
        waiting_share,
        waiting_days,
        copies,
        ..
    } = *plan;
    let Load {
        deliveries,
        messages_s,
        ..
    } = *load;
    let entry_overhead_bytes = cost(measured, "entry_overhead_bytes");
    let device_answers_bytes = cost(measured, "device_answers_bytes");
    let fdb_core_writes = cost(measured, "fdb_core_writes");
    let fdb_cluster_processes = cost(measured, "fdb_cluster_processes");
    let mut steps = Vec::new();
    step!(steps, commit_writes ["writes"] from (deliveries):
        1.0 + deliveries,
        "of a message: its answer slot (R12) and an inbox entry for each device");
    step!(steps, acknowledge_writes ["writes"] from (deliveries, devices):
        (2.0 * deliveries + 3.0 + 2.0 * devices + 2.0 * devices) / 2.0,
        "an ack and a clear for each entry; receipt positions, delivered and read entries for \
         each of the sender's devices and their acks; two messages to a flush (R18)");
    step!(steps, fdb_writes_s ["writes/s"] from (messages_s, commit_writes,
         acknowledge_writes, copies):
        messages_s * (commit_writes + acknowledge_writes) * copies,
        "on all copies");
    step!(steps, fdb_storage_processes ["processes"] from (fdb_writes_s, fdb_core_writes):
        (fdb_writes_s / (fdb_core_writes * 0.75)).ceil(),
        "one on a core, at most three quarters busy");
    step!(steps, fdb_processes ["processes"] from (fdb_storage_processes):
        (fdb_storage_processes * 1.25).ceil(),
        "with logs, proxies and resolvers");
    step!(steps, fdb_clusters ["clusters"] from (fdb_processes, fdb_cluster_processes):
        (fdb_processes / fdb_cluster_processes).ceil(),
        "users are spread over them by slot (R27, not built yet)");
    step!(steps, waiting_tb ["TB"] from (messages_per_day, deliveries, waiting_share,
         waiting_days, payload_bytes, entry_overhead_bytes):
        messages_per_day * deliveries * waiting_share * waiting_days *
            (payload_bytes + entry_overhead_bytes) / 1e12,
        "inbox entries of devices that are away");
    step!(steps, answers_tb ["TB"] from (users, devices, device_answers_bytes):
        users * devices * device_answers_bytes / 1e12,
        "answers kept for repeated sends, if every device has used all of its slots");
    step!(steps, disk_tb ["TB"] from (waiting_tb, answers_tb, copies):
        (waiting_tb + answers_tb) * copies * 1.5,
        "all copies, half as much again for slack and free space; history is not in it");
    step!(steps, log_mb_s ["MB/s"] from (messages_s, deliveries, payload_bytes,
         entry_overhead_bytes, copies):
        messages_s * deliveries * (payload_bytes + entry_overhead_bytes) * copies /
            1e6,
        "written by commits, all copies");
    steps
}
