//! Packets go out: the endpoint builds them in an arena, and each train becomes one send.

use roadstead_quic::{Stats, Transmit};

use super::Lean;
use crate::quic::Outbound;

/// Packets of one train: 32 of 1,252 bytes are well below the 64 KiB of a UDP datagram.
const TRAIN_PACKETS_MAX: usize = 32;

impl Lean {
    /// Emits every packet that is due.
    pub(super) fn send_all(&mut self, out: &mut impl Outbound) {
        let now = self.present();
        loop {
            self.transmits.clear();
            let more = self
                .endpoint
                .poll_transmit(now, &mut self.arena, &mut self.transmits);
            for transmit in &self.transmits {
                emit(*transmit, &self.arena, self.transport.gso, out);
            }
            if !more {
                break;
            }
        }
        self.translate();
    }

    /// What was written has gone as far as it may; now the closes follow.
    pub(super) fn send_closes(&mut self) {
        let now = self.present();
        for closing in std::mem::take(&mut self.closing) {
            let code = u64::from(closing.code);
            self.endpoint
                .close_with_reason(now, closing.handle, code, &closing.reason);
        }
        self.translate();
    }

    /// Brings the counters up to date with the endpoint's statistics.
    pub(super) fn count(&mut self) {
        let half_open = self.endpoint.half_open() + self.connecting;
        self.counters.half_open.set(half_open as u64);
        self.counters.connections.set(self.open as u64);
        // Most turns change nothing but what is counted elsewhere.
        let events = self.endpoint.events();
        if std::mem::replace(&mut self.counted_events, events) == events {
            return;
        }
        let (stats, counters) = (self.endpoint.stats(), &self.counters);
        let grown = |pick: fn(&Stats) -> u64| pick(&stats) - pick(&self.counted);
        counters.retries_sent.add(grown(|s| s.retries_sent));
        counters.resets_sent.add(grown(|s| s.resets_sent));
        counters
            .resets_suppressed
            .add(grown(|s| s.resets_suppressed));
        counters
            .other_responses_sent
            .add(grown(|s| s.version_negotiations_sent + s.refused));
        counters.drop_half_open.add(grown(|s| s.no_room));
        counters.handshakes_displaced.add(grown(|s| s.displaced));
        counters.tokens_forgotten.add(grown(|s| s.tokens_forgotten));
        counters.closed_hoarders.add(grown(|s| s.hoarders_closed));
        counters.drop_quota.add(grown(|s| s.quota_dropped));
        counters.closed_broken.add(grown(|s| s.invariants_broken));
        counters
            .drop_packet_number
            .add(grown(|s| s.numbers_refused));
        counters.drop_token_reused.add(grown(|s| s.tokens_refused));
        counters
            .drop_unroutable
            .add(grown(|s| s.dropped + s.strays));
        self.counted = stats;
    }
}

fn emit(transmit: Transmit, arena: &[u8], gso: bool, out: &mut impl Outbound) {
    let Transmit {
        path,
        offset,
        len,
        segment,
    } = transmit;
    let packets = if gso { TRAIN_PACKETS_MAX } else { 1 };
    for train in arena[offset..offset + len].chunks(segment * packets) {
        out.buffer().extend_from_slice(train);
        let segment = u16::try_from(segment)
            .ok()
            .filter(|_| train.len() > segment);
        out.send(path.socket, path.remote, segment);
    }
}
