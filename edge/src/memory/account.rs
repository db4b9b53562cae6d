//! `/debug/memory`: where the bytes are, shard by shard, and what is left over.

use std::fmt::Write;

use roadstead_net::TransportMemory;
use serde_json::{Value, json};

use roadstead_net::host::bytes_of;

/// What a shard holds, in bytes, told by itself.
#[derive(Debug)]
pub(crate) struct ShardMemory {
    pub(crate) sessions: u64,
    pub(crate) transport: Option<TransportMemory>,
    pub(crate) session_bytes: u64,
    pub(crate) directory_bytes: u64,
    pub(crate) connection_bytes: u64,
    pub(crate) held_bytes: u64,
}

impl ShardMemory {
    /// Name and bytes of each part. The tables are counted with their free places.
    fn parts(&self) -> Vec<(&'static str, u64)> {
        let transport = self.transport.unwrap_or_default();
        vec![
            ("transport, table", transport.table_bytes as u64),
            ("transport, under way", transport.active_bytes as u64),
            ("sessions, with timers", self.session_bytes),
            ("directory", self.directory_bytes),
            ("connections of the worker", self.connection_bytes),
            ("unfinished frames, unread bytes", self.held_bytes),
        ]
    }
}

/// What the process and the kernel hold, in bytes.
#[derive(Debug, Default)]
pub(crate) struct ProcessMemory {
    /// Resident, not backed by a file.
    anonymous: u64,
    /// Resident, of the program and of files mapped.
    file: u64,
    /// Packets that wait in the receive buffers of this process's UDP port.
    socket_queue: u64,
}

impl ProcessMemory {
    /// Reads `/proc`. What can not be read is 0.
    pub(crate) fn read(udp_port: u16) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = |name: &str| bytes_of(&status, name).unwrap_or(0);
        let queues = ["/proc/self/net/udp", "/proc/self/net/udp6"].map(|path| {
            let table = std::fs::read_to_string(path).unwrap_or_default();
            receive_queue(&table, udp_port)
        });
        Self {
            anonymous: resident("RssAnon:"),
            file: resident("RssFile:"),
            socket_queue: queues.iter().sum(),
        }
    }
}

/// The bytes that wait for sockets of a port: `proc(5)`, `/proc/net/udp`.
fn receive_queue(table: &str, port: u16) -> u64 {
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let (_, local_port) = local.rsplit_once(':')?;
        let queues = fields.nth(2)?;
        let is_ours = u16::from_str_radix(local_port, 16).ok()? == port;
        let (_, receive) = queues.split_once(':')?;
        is_ours.then(|| u64::from_str_radix(receive, 16).ok())?
    };
    table.lines().skip(1).filter_map(of_line).sum()
}

/// Everything together.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) shards: Vec<ShardMemory>,
    pub(crate) store_young_bytes: u64,
    pub(crate) process: ProcessMemory,
}

impl Report {
    fn sessions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.sessions).sum()
    }

    /// Resident memory that no part explains: allocator slack, buffers of the rings, caches of the store,
    /// code and stacks written to.
    fn rest(&self) -> u64 {
        let parts = self.shards.iter().flat_map(ShardMemory::parts);
        let known: u64 = parts.map(|(_, bytes)| bytes).sum();
        let known = known + self.store_young_bytes;
        self.process.anonymous.saturating_sub(known)
    }

    pub(crate) fn json(&self) -> Value {
        let shards = self.shards.iter().map(|shard| {
            let parts = shard.parts();
            let parts: serde_json::Map<_, _> = parts
                .into_iter()
                .map(|(name, bytes)| (name.to_owned(), bytes.into()))
                .collect();
            json!({
                "sessions": shard.sessions,
                "transport_known": shard.transport.is_some(),
                "connections_under_way": shard.transport.map(|transport| transport.active),
                "bytes": parts,
            })
        });
        json!({
            "shards": shards.collect::<Vec<_>>(),
            "store_young_bytes": self.store_young_bytes,
            "rest_bytes": self.rest(),
            "anonymous_bytes": self.process.anonymous,
            "file_bytes": self.process.file,
            "socket_queue_bytes": self.process.socket_queue,
        })
    }

    /// A table for people: bytes, and bytes for each session.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, bytes: u64, sessions: u64| {
            let each = bytes.checked_div(sessions);
            let each = each.map_or(String::from("-"), |each| each.to_string());
            let _ = writeln!(text, "{name:<40} {bytes:>15} {each:>12}");
        };
        for (index, shard) in self.shards.iter().enumerate() {
            let known = if shard.transport.is_some() {
                ""
            } else {
                ", transport unknown"
            };
            row(
                &format!("shard {index}: {} sessions{known}", shard.sessions),
                0,
                0,
            );
            for (name, bytes) in shard.parts() {
                row(&format!("  {name}"), bytes, shard.sessions);
            }
        }
        let all = self.sessions();
        row("store, not yet in its tables", self.store_young_bytes, all);
        row("rest: allocator, rings, caches, stacks", self.rest(), all);
        row("anonymous memory", self.process.anonymous, all);
        row("files and code", self.process.file, all);
        row(
            "kernel: packets waiting to be read",
            self.process.socket_queue,
            all,
        );
        format!("{:<40} {:>15} {:>12}\n{text}", "", "bytes", "per session")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receive_queue_of_the_port_is_summed() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
            10: 0100007F:1151 00000000:0000 07 00000000:00000A00 00:00000000 00000000 0 0 1 2 0 0\n\
            11: 0100007F:1151 00000000:0000 07 00000000:00000001 00:00000000 00000000 0 0 1 2 0 0\n\
            12: 0100007F:1152 00000000:0000 07 00000000:00000100 00:00000000 00000000 0 0 1 2 0 0\n";
        assert_eq!(receive_queue(table, 0x1151), 0xa01);
        assert_eq!(receive_queue("", 1), 0);
    }

    #[test]
    fn the_parts_and_the_rest_make_up_the_whole() {
        let shard = ShardMemory {
            sessions: 10,
            transport: Some(TransportMemory {
                connections: 10,
                active: 1,
                table_bytes: 5_000,
                active_bytes: 700,
            }),
            session_bytes: 1_600,
            directory_bytes: 600,
            connection_bytes: 160,
            held_bytes: 0,
        };
        let report = Report {
            shards: vec![shard],
            store_young_bytes: 1_000,
            process: ProcessMemory {
                anonymous: 10_000,
                file: 3,
                socket_queue: 0,
            },
        };
        assert_eq!(
            report.rest(),
            10_000 - 5_000 - 700 - 1_600 - 600 - 160 - 1_000
        );
        let text = report.text();
        assert!(text.contains("shard 0: 10 sessions"), "{text}");
        let table = text
            .lines()
            .find(|line| line.contains("transport, table"))
            .expect("a row");
        assert!(table.ends_with("5000          500"), "{table}");
        assert_eq!(report.json()["shards"][0]["bytes"]["directory"], 600);
    }
}
