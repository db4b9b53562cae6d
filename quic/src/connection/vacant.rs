//! A connection as an entry of the slab and of the timer wheel.

use super::{Connection, Flags, IdlePing, OwnIds, PeerParams, Phases, State};
use crate::keys::OneRttKeys;
use crate::packet::ConnectionId;
use crate::quota::Quota;
use crate::recovery::{Rtt, Window};
use crate::slab::{Entry, Links};
use crate::space::PnSpace;
use crate::streams::{Counts, Flow, StreamState};

impl<T> Entry for Connection<T> {
    fn vacant() -> Self {
        Self {
            active: None,
            peer_ids: None,
            generation: 0,
            app: 0,
            flags: Flags::default(),
            state: State::Vacant,
            own: OwnIds {
                active: [None; 2],
                next: 0,
            },
            pto_count: 0,
            unacknowledged: 0,
            socket: 0,
            ip: [0; 16],
            port: 0,
            peer_cid: ConnectionId::EMPTY,
            peer_seq: 0,
            pn: PnSpace::NEW,
            rtt: Rtt::NEW,
            window: Window {
                cwnd: 0,
                ssthresh: 0,
            },
            keys: OneRttKeys::None,
            phases: Phases::default(),
            flow: Flow {
                tx_max: 0,
                tx_sent: 0,
                rx_max: 0,
                consumed: 0,
            },
            stream_window: 0,
            connection_window: 0,
            counts: Counts {
                tx_limit: [0; 2],
                tx_opened: [0; 2],
                rx_limit: [0; 2],
                rx_opened: [0; 2],
                window_theirs: 0,
                window_ours: 0,
                window_uni: 0,
            },
            stream0: StreamState::ABSENT,
            peer: PeerParams {
                idle_ms: 0,
                payload_max: 1_200,
                datagram_max: 0,
                max_ack_delay_ms: 25,
                ack_delay_exponent: 3,
            },
            ping: IdlePing::default(),
            mtu: 0,
            in_flight_bytes: 0,
            quota: Quota::default(),
            links: Links::NONE,
        }
    }

    fn is_vacant(&self) -> bool {
        self.state == State::Vacant
    }

    fn generation(&self) -> u32 {
        self.generation
    }

    fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}
