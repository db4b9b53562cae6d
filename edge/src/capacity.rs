//! What things cost, in one place: `roadstead doctor` and `roadstead plan` calculate with these. Each says
//! where it was measured; docs/PLAN.md names the commands.

use serde::Serialize;

/// A measured or published number, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) source: &'static str,
}

impl Measured {
    const fn new(name: &'static str, value: f64, unit: &'static str, source: &'static str) -> Self {
        Self {
            name,
            value,
            unit,
            source,
        }
    }

    /// A number of bytes, whole.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the constants below are positive and small"
    )]
    pub(crate) fn bytes(self) -> u64 {
        self.value.ceil() as u64
    }
}

pub(crate) const SESSION_BYTES_QUINN: Measured = Measured::new(
    "session_bytes",
    17_779.0,
    "bytes",
    "SPECIFICATION.md: 50,000 sessions held, quinn",
);

pub(crate) const SESSION_BYTES_LEAN: Measured = Measured::new(
    "session_bytes",
    1_038.0,
    "bytes",
    "SPECIFICATION.md: 250,000 sessions held, lean",
);

pub(crate) const MESSAGE_CPU_QUINN: Measured = Measured::new(
    "message_cpu_us",
    38.0,
    "us",
    "SPECIFICATION.md: 30,000 messages/s with one delivery each, quinn, two busy cores",
);

pub(crate) const MESSAGE_CPU_LEAN: Measured = Measured::new(
    "message_cpu_us",
    39.0,
    "us",
    "SPECIFICATION.md: 30,000 messages/s with one delivery each, lean, two busy cores",
);

pub(crate) const HANDSHAKE_CPU: Measured = Measured::new(
    "handshake_cpu_us",
    238.0,
    "us",
    "SPECIFICATION.md: handshake and login, lean (at most; all else included)",
);

pub(crate) const HEARTBEAT_CPU_QUINN: Measured = Measured::new(
    "heartbeat_cpu_us",
    62.0,
    "us",
    "`loadgen hold --sessions 20000` for 22 s, heartbeat_s = 4, quinn: 254,714 us/s at 4,093/s, a wake-up for each packet",
);

pub(crate) const HEARTBEAT_CPU_LEAN: Measured = Measured::new(
    "heartbeat_cpu_us",
    46.0,
    "us",
    "`loadgen hold --sessions 20000` for 22 s, heartbeat_s = 4, lean: 227,588 us/s at 4,964/s, a wake-up for each packet",
);

pub(crate) const HEARTBEAT_PACKETS: Measured = Measured::new(
    "heartbeat_packets",
    2.0,
    "packets",
    "T10, `quic/tests/heartbeat.rs`; the same run counted 4,093/s each way",
);

pub(crate) const HEARTBEAT_BYTES: Measured = Measured::new(
    "heartbeat_bytes",
    65.0,
    "bytes",
    "the same run: 33 bytes of UDP payload in, 32 out",
);

pub(crate) const MESSAGE_PACKETS: Measured = Measured::new(
    "message_packets",
    8.7,
    "packets",
    "`loadgen chat --sessions 2000 --rate 5000`, one delivery each, quinn: 20,361/s in and 23,646/s out at 5,040 messages/s",
);

pub(crate) const MESSAGE_BYTES: Measured = Measured::new(
    "message_overhead_bytes",
    587.0,
    "bytes",
    "the same chat: 787 bytes of UDP payload a message, less twice its payload of 100",
);

pub(crate) const PACKET_BYTES: Measured = Measured::new(
    "packet_header_bytes",
    28.0,
    "bytes",
    "IPv4 (RFC 791) 20 and UDP (RFC 768) 8; IPv6 has 20 more",
);

pub(crate) const HANDSHAKE_BYTES: Measured = Measured::new(
    "handshake_bytes",
    6_000.0,
    "bytes",
    "assumed: padded Initials of 1,200 (RFC 9000 section 14.1), certificate, token, Welcome",
);

pub(crate) const FDB_WRITES: Measured = Measured::new(
    "fdb_core_writes",
    20_000.0,
    "writes/s",
    "FoundationDB's own figure for a core of its ssd engine (docs/OPERATIONS.md); not measured here",
);

pub(crate) const FDB_PROCESSES: Measured = Measured::new(
    "fdb_cluster_processes",
    500.0,
    "processes",
    "what FoundationDB is tested to (docs/OPERATIONS.md)",
);

pub(crate) const ENTRY_BYTES: Measured = Measured::new(
    "entry_overhead_bytes",
    100.0,
    "bytes",
    "an inbox entry of a 250-byte payload is 350 bytes with its key (docs/OPERATIONS.md)",
);

pub(crate) const ANSWER_BYTES: Measured = Measured::new(
    "device_answers_bytes",
    19_200.0,
    "bytes",
    "256 answers of 75 bytes a device (R12, docs/OPERATIONS.md)",
);

/// Receive buffers of a shard at their most, all filled by trains that wait: 512 of 68 KiB (`net/src/receive.rs`).
pub(crate) const SHARD_BYTES: u64 = 34 << 20;

/// The embedded store: block cache 64 MiB, what waits to be written up to 64 MiB, small keys, and memory
/// tables of the database.
pub(crate) const STORE_BYTES: u64 = 256 << 20;

/// A ring needs between 128 and 256 KiB of RLIMIT_MEMLOCK (a server of one shard starts with 262,144 bytes
/// and not with 131,072); twice that, because a restart finds the last process's still counted.
pub(crate) const LOCKED_BYTES_PER_SHARD: u64 = 512 << 10;

/// A page of memory on x86-64 and on most of aarch64.
pub(crate) const PAGE_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::grouped;

    #[test]
    fn what_cites_the_specification_is_in_it() {
        let specification = include_str!("../../SPECIFICATION.md");
        for measured in [
            SESSION_BYTES_QUINN,
            SESSION_BYTES_LEAN,
            MESSAGE_CPU_QUINN,
            MESSAGE_CPU_LEAN,
            HANDSHAKE_CPU,
        ] {
            assert!(measured.source.contains("SPECIFICATION.md"));
            let value = grouped(measured.bytes());
            let cited = [" us", " B", "** B"]
                .iter()
                .any(|unit| specification.contains(&format!("{value}{unit}")));
            assert!(
                cited,
                "{value} {} is not in SPECIFICATION.md",
                measured.unit
            );
        }
    }
}
