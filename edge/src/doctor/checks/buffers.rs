//! What the kernel may queue, and what it tracks, between the device and the sockets.

use super::Need;
use crate::capacity;
use crate::doctor::finding::{Finding, Want};
use crate::doctor::grouped;
use crate::doctor::host::Host;

/// What the server asks for each socket (`ServerConfig::receive_buffer` of the net crate).
const RECEIVE_BUFFER_BYTES: u64 = 16 << 20;

/// A shard's sends of one turn: some thousand packets, at 768 bytes of bookkeeping each.
const SEND_BUFFER_BYTES: u64 = 4 << 20;

/// Packets that wait for a core when it is busy elsewhere: a burst of a tenth of a second at 160,000/s.
const BACKLOG_PACKETS: u64 = 16_384;

/// A share of received datagrams that may be dropped before that is worth a warning.
const DROPPED_PER_MILLION: u64 = 10;

pub(super) fn receive(host: &Host) -> Finding {
    let want = Want::new(
        "rmem_max",
        format!("{} or more", grouped(RECEIVE_BUFFER_BYTES)),
        "the server asks for 16 MiB a socket; without CAP_NET_ADMIN it gets no more than this, and a \
         burst while the shard is busy is lost",
    );
    let fix = format!("sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES}");
    let found = host.number("proc/sys/net/core/rmem_max");
    want.at_least(found, RECEIVE_BUFFER_BYTES, fix)
}

pub(super) fn send(host: &Host) -> Finding {
    let want = Want::new(
        "wmem_default",
        format!("{} or more", grouped(SEND_BUFFER_BYTES)),
        "sockets keep the default; a full one loses packets (roadstead_net_send_lost_again) and QUIC sends \
         them again",
    );
    let fix = format!("sysctl -w net.core.wmem_default={SEND_BUFFER_BYTES}");
    let found = host.number("proc/sys/net/core/wmem_default");
    want.at_least(found, SEND_BUFFER_BYTES, fix)
}

pub(super) fn udp_memory(host: &Host, need: &Need) -> Finding {
    // The kernel doubles what is asked for, to cover its own bookkeeping (socket(7)).
    let least = need.shards * 2 * RECEIVE_BUFFER_BYTES / capacity::PAGE_BYTES;
    let want = Want::new(
        "udp_mem",
        format!("the third number {} pages or more", grouped(least)),
        "above it the kernel drops datagrams of every socket, however much room theirs have",
    );
    let fix = format!(
        "sysctl -w net.ipv4.udp_mem='{} {} {}'",
        least,
        least * 2,
        least * 4
    );
    let words = host.text("proc/sys/net/ipv4/udp_mem");
    let found = words.and_then(|text| text.split_whitespace().nth(2)?.parse().ok());
    want.at_least(found, least, fix)
}

pub(super) fn backlog(host: &Host) -> Finding {
    let want = Want::new(
        "netdev_max_backlog",
        format!("{} or more", grouped(BACKLOG_PACKETS)),
        "with RPS and on loopback packets wait here for their core; what does not fit is dropped",
    );
    let fix = format!("sysctl -w net.core.netdev_max_backlog={BACKLOG_PACKETS}");
    let found = host.number("proc/sys/net/core/netdev_max_backlog");
    want.at_least(found, BACKLOG_PACKETS, fix)
}

pub(super) fn dropped(host: &Host) -> Finding {
    let want = Want::new(
        "dropped",
        "fewer than 10 in a million since the host started",
        "drops before the socket (backlog) and at the socket (receive buffer, udp_mem) are lost messages \
         until QUIC repeats them",
    );
    let udp = |name| udp_counter(host, name);
    let (Some(received), Some(buffer), Some(memory)) =
        (udp("InDatagrams"), udp("RcvbufErrors"), udp("MemErrors"))
    else {
        return want.note("cannot be read", "");
    };
    let backlog = backlog_drops(host);
    let found = format!(
        "backlog {}, receive buffers {}, udp_mem {}, of {} datagrams",
        grouped(backlog),
        grouped(buffer),
        grouped(memory),
        grouped(received)
    );
    let dropped = backlog + buffer + memory;
    if dropped.saturating_mul(1_000_000) > received.saturating_mul(DROPPED_PER_MILLION) {
        want.warning(
            found,
            "raise what the drops name: the rows above; then look again",
        )
    } else {
        want.ok(found)
    }
}

/// Packets that found the backlog of their core full: the second column of /proc/net/softnet_stat.
fn backlog_drops(host: &Host) -> u64 {
    let text = host.text("proc/net/softnet_stat").unwrap_or_default();
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().filter_map(column).sum()
}

/// A counter of the `Udp:` lines of /proc/net/snmp: one names, the next one counts.
fn udp_counter(host: &Host, name: &str) -> Option<u64> {
    let text = host.text("proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, counts) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|it| it == name)?;
    counts.split_whitespace().nth(column)?.parse().ok()
}

pub(super) fn conntrack(host: &Host, need: &Need) -> Finding {
    let want = Want::new(
        "conntrack",
        "not tracking the server's port",
        "every phone is a flow: a full table drops packets of new ones, and each packet pays for the look-up",
    );
    let max = host.number("proc/sys/net/netfilter/nf_conntrack_max");
    let count = host.number("proc/sys/net/netfilter/nf_conntrack_count");
    let (Some(max), Some(count)) = (max, count) else {
        return want.ok("not loaded");
    };
    let found = format!("{} of {} entries used", grouped(count), grouped(max));
    let fix = format!(
        "tuning/apply --write nftables, or sysctl -w net.netfilter.nf_conntrack_max={}",
        need.sessions * 2
    );
    if count == 0 {
        return want.ok(format!("loaded, tracks nothing ({found})"));
    }
    if max < need.sessions {
        return want.failure(found, fix);
    }
    want.warning(found, fix)
}

pub(super) fn flow_steering(host: &Host) -> Finding {
    let want = Want::new(
        "rfs",
        "0",
        "RFS remembers a core per flow in a small table; a million phones overwrite each other's entries, \
         and the server steers by connection id",
    );
    match host.number("proc/sys/net/core/rps_sock_flow_entries") {
        None => want.note("cannot be read", ""),
        Some(0) => want.ok("0"),
        Some(entries) => want.note(
            grouped(entries),
            "sysctl -w net.core.rps_sock_flow_entries=0",
        ),
    }
}
