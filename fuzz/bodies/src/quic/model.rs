//! What the applications of a pair did and saw, kept beside the engines and compared with them.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_quic::{Dir, Side, direction, initiator};

use super::common::net::{Net, Node, Note, pattern};
use super::drive::{End, is_closed};

/// One direction of one stream.
#[derive(Clone, Default, Debug)]
struct Half {
    written: usize,
    finished: bool,
    reset: bool,
    stopped: bool,
    read: usize,
    ended: bool,
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Model {
    /// Streams that each end knows of, in order of appearance.
    known: [Vec<u64>; 2],
    /// By stream and sending end.
    halves: BTreeMap<(u64, bool), Half>,
    noted: [usize; 2],
    datagrams: [BTreeSet<u32>; 2],
    next_datagram: u32,
}

const fn index(end: End) -> usize {
    end as usize
}

fn opposite(end: End) -> End {
    match end {
        End::Client => End::Server,
        End::Server => End::Client,
    }
}

fn opener(id: u64) -> End {
    match initiator(id) {
        Side::Client => End::Client,
        Side::Server => End::Server,
    }
}

/// Whether an end may send on a stream.
fn sends(end: End, id: u64) -> bool {
    direction(id) == Dir::Bidi || opener(id) == end
}

/// The byte of a stream at an offset: different for each stream and direction.
fn byte(id: u64, end: End, at: usize) -> u8 {
    let stream = usize::try_from(id).unwrap_or(usize::MAX);
    pattern(at + 7 * stream + index(end))
}

/// Calls a method of the node at an end.
macro_rules! at {
    ($net:expr, $end:expr, $method:ident($($argument:expr),*)) => {{
        let now = $net.now;
        match $end {
            End::Client => $net.client.$method(now $(, $argument)*),
            End::Server => $net.server.$method(now $(, $argument)*),
        }
    }};
}

pub(super) use at;

impl Model {
    fn pick(&self, end: End, stream: u8) -> Option<u64> {
        let known = &self.known[index(end)];
        known.get(usize::from(stream) % known.len().max(1)).copied()
    }

    fn half(&mut self, id: u64, sender: End) -> &mut Half {
        self.halves.entry((id, sender == End::Server)).or_default()
    }

    fn learn(&mut self, end: End, id: u64) {
        assert!(
            !self.known[index(end)].contains(&id),
            "stream {id} opens once"
        );
        self.known[index(end)].push(id);
    }

    pub(super) fn open<C: Node, S: Node>(&mut self, net: &mut Net<C, S>, end: End, uni: bool) {
        if let Some(id) = at!(net, end, open(uni)) {
            self.learn(end, id);
        }
    }

    pub(super) fn write<C: Node, S: Node>(
        &mut self,
        net: &mut Net<C, S>,
        end: End,
        stream: u8,
        len: u16,
    ) {
        let Some(id) = self.pick(end, stream).filter(|id| sends(end, *id)) else {
            return;
        };
        let from = self.half(id, end).written;
        let bytes = (from..from + usize::from(len % 16_384)).map(|at| byte(id, end, at));
        let bytes: Vec<u8> = bytes.collect();
        let written = at!(net, end, write(id, &bytes));
        let half = self.half(id, end);
        assert!(written <= bytes.len());
        assert!(
            written == 0 || !half.finished && !half.reset,
            "nothing is written behind the end of {id}"
        );
        half.written += written;
    }

    pub(super) fn finish<C: Node, S: Node>(&mut self, net: &mut Net<C, S>, end: End, stream: u8) {
        if let Some(id) = self.pick(end, stream) {
            self.finish_id(net, end, id);
        }
    }

    fn finish_id<C: Node, S: Node>(&mut self, net: &mut Net<C, S>, end: End, id: u64) {
        if sends(end, id) && at!(net, end, finish(id)) {
            self.half(id, end).finished = true;
        }
    }

    pub(super) fn reset<C: Node, S: Node>(
        &mut self,
        net: &mut Net<C, S>,
        end: End,
        stream: u8,
        code: u8,
    ) {
        let id = self.pick(end, stream).filter(|id| sends(end, *id));
        if let Some(id) = id
            && at!(net, end, reset(id, code.into()))
        {
            self.half(id, end).reset = true;
        }
    }

    pub(super) fn stop<C: Node, S: Node>(
        &mut self,
        net: &mut Net<C, S>,
        end: End,
        stream: u8,
        code: u8,
    ) {
        let id = self.pick(end, stream);
        if let Some(id) = id.filter(|id| sends(opposite(end), *id))
            && at!(net, end, stop(id, code.into()))
        {
            self.half(id, opposite(end)).stopped = true;
        }
    }

    pub(super) fn read<C: Node, S: Node>(&mut self, net: &mut Net<C, S>, end: End, stream: u8) {
        if let Some(id) = self.pick(end, stream) {
            self.read_id(net, end, id);
        }
    }

    /// Once and in order (T15).
    fn read_id<C: Node, S: Node>(&mut self, net: &mut Net<C, S>, end: End, id: u64) {
        let sender = opposite(end);
        if !sends(sender, id) {
            return;
        }
        let (data, fin) = at!(net, end, read(id));
        let half = self.half(id, sender);
        for found in data {
            let expected = byte(id, sender, half.read);
            assert_eq!(found, expected, "byte {} of stream {id}", half.read);
            half.read += 1;
        }
        assert!(half.read <= half.written, "no more arrives than was sent");
        if fin {
            assert!(
                half.finished && half.read == half.written,
                "the end of {id}"
            );
            half.ended = true;
        }
    }

    pub(super) fn datagram<C: Node, S: Node>(&mut self, net: &mut Net<C, S>, end: End, len: u16) {
        self.next_datagram += 1;
        let mut data = self.next_datagram.to_be_bytes().to_vec();
        data.resize(4 + usize::from(len % 1_300), 0);
        if at!(net, end, send_datagram(data)) {
            self.datagrams[index(end)].insert(self.next_datagram);
        }
    }

    /// Takes what the nodes told since the last time.
    pub(super) fn take_notes<C: Node, S: Node>(&mut self, net: &mut Net<C, S>) {
        for end in [End::Client, End::Server] {
            let notes = match end {
                End::Client => &net.client_notes,
                End::Server => &net.server_notes,
            };
            let new: Vec<Note> = notes[self.noted[index(end)]..].to_vec();
            self.noted[index(end)] = notes.len();
            new.into_iter().for_each(|note| self.take_note(end, &note));
        }
    }

    fn take_note(&mut self, end: End, note: &Note) {
        match note {
            Note::Opened(id) => {
                assert_eq!(opener(*id), opposite(end), "the peer opened it");
                self.learn(end, *id);
            }
            Note::Reset(id, _) => {
                let half = self.half(*id, opposite(end));
                assert!(half.reset || half.stopped, "{id} was reset by nobody");
                half.reset = true;
            }
            Note::Stopped(id, _) => {
                let half = self.half(*id, end);
                assert!(half.stopped, "{id} was stopped by nobody");
                half.reset = true;
            }
            Note::Delivered(id) => assert!(self.half(*id, end).finished),
            Note::Datagram(data) => {
                let number = data[..4].try_into().map(u32::from_be_bytes);
                let number = number.expect("every datagram has one");
                let sent = &mut self.datagrams[index(opposite(end))];
                assert!(sent.remove(&number), "datagram {number} arrives once");
            }
            _ => {}
        }
    }

    /// Fair weather: everything is read and finished, then nothing happens any more.
    pub(super) fn settle<C: Node, S: Node>(&mut self, net: &mut Net<C, S>) {
        let until = net.now + 600_000_000;
        loop {
            self.take_notes(net);
            for end in [End::Client, End::Server] {
                for id in self.known[index(end)].clone() {
                    self.read_id(net, end, id);
                    if !self.half(id, end).finished {
                        self.finish_id(net, end, id);
                    }
                }
            }
            if self.is_over(net) || self.is_complete(net) || !net.step(until) {
                break;
            }
        }
        self.take_notes(net);
        if self.is_over(net) {
            return;
        }
        assert!(net.connected(), "neither connected nor closed");
        assert!(self.is_complete(net), "lost without a reason: {self:#?}");
        // What is still under way comes to rest, and what was waiting for a probe is dropped.
        net.client.ping(net.now);
        net.server.ping(net.now);
        net.run_for(40_000_000);
        self.take_notes(net);
    }

    /// Whether the connection is over at one end.
    pub(super) fn is_over<C: Node, S: Node>(&self, net: &Net<C, S>) -> bool {
        is_closed(&net.client_notes) || is_closed(&net.server_notes)
    }

    fn is_complete<C: Node, S: Node>(&self, net: &Net<C, S>) -> bool {
        let known = self.known.iter().flatten();
        let mut halves = known.flat_map(|id| [(*id, false), (*id, true)]);
        net.connected()
            && halves.all(|(id, server)| {
                let sender = if server { End::Server } else { End::Client };
                let half = self.halves.get(&(id, server)).cloned().unwrap_or_default();
                !sends(sender, id) || half.reset || half.stopped || half.ended
            })
    }
}
