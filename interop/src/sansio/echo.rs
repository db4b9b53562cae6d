//! The echo that every server is: bidirectional streams come back on themselves, unidirectional ones on
//! one of the server's own, datagrams as datagrams.

use std::collections::BTreeMap;

use roadstead_quic::{Dir, Time, direction};

use crate::{
    common::net::{Node, Note},
    script::Facts,
};

#[derive(Debug, Default)]
struct Stream {
    /// Read and not yet written.
    buffer: Vec<u8>,
    total: u64,
    ended: bool,
    /// Where the answer goes.
    back: Option<u64>,
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Echo {
    streams: BTreeMap<u64, Stream>,
}

impl Echo {
    /// Takes what happened.
    pub(super) fn take<N: Node>(
        &mut self,
        now: Time,
        node: &mut N,
        notes: &[Note],
        facts: &mut Facts,
    ) {
        for note in notes {
            match note {
                Note::Opened(id) | Note::Readable(id) => {
                    self.streams.entry(*id).or_default();
                }
                Note::Datagram(data) => {
                    let echoed = node.send_datagram(now, data.clone());
                    facts.datagrams += u32::from(echoed);
                }
                Note::Closed(_) => self.streams.clear(),
                _ => {}
            }
        }
        self.drive(now, node, facts);
    }

    fn drive<N: Node>(&mut self, now: Time, node: &mut N, facts: &mut Facts) {
        self.streams.retain(|id, stream| {
            if !stream.ended {
                let (data, ended) = node.read(now, *id);
                stream.total += data.len() as u64;
                stream.buffer.extend(data);
                stream.ended = ended;
            }
            let own = direction(*id) == Dir::Bidi;
            if stream.back.is_none() && (own || stream.ended) {
                stream.back = if own { Some(*id) } else { node.open(now, true) };
            }
            let Some(back) = stream.back else { return true };
            let written = node.write(now, back, &stream.buffer);
            stream.buffer.drain(..written);
            let done = stream.ended && stream.buffer.is_empty();
            if done {
                node.finish(now, back);
                facts.streams += 1;
                facts.bytes += stream.total;
            }
            !done
        });
    }
}
