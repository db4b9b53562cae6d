//! docs/INTEROP.md.

use std::fmt::Write;

use crate::{
    matrix::{Column, Outcome},
    scenario::Feature,
};

/// How one role did.
#[derive(Clone, Debug, Default)]
pub struct Weathered {
    /// Who is who.
    pub name: &'static str,
    /// Lives.
    pub seeds: u64,
    /// Of these, how many connected.
    pub connected: u64,
    /// Of these, how many had everything arrive.
    pub arrived: u64,
    /// Of these, how many closed with a reason before.
    pub closed: u64,
    /// Seeds in which an assertion failed.
    pub failed: Vec<u64>,
}

/// The document.
pub fn document(columns: &[Column], skipped: &[String], pairs: &[Weathered]) -> String {
    let mut doc = String::from(
        "# Interoperation\n\n\
         Written by `cargo run` in `interop/`; do not edit. Roadstead's engine (`quic/`, with the TLS and\n\
         AEAD seams of `net/`) against other implementations over UDP on the loopback address, through a\n\
         tap that reads long headers and plays the NAT. The left word of a cell is Roadstead as the client,\n\
         the right one Roadstead as the server. Numbers refer to the reasons below the table.\n\n",
    );
    let mut reasons = Vec::new();
    table(&mut doc, columns, &mut reasons);
    if !reasons.is_empty() {
        doc.push_str("\nNot offered:\n\n");
        for (n, reason) in reasons.iter().enumerate() {
            line(&mut doc, format_args!("{}. {reason}", n + 1));
        }
    }
    for text in skipped {
        line(&mut doc, format_args!("\n{text}"));
    }
    doc.push_str("\n## What a pass asserts\n\n");
    for feature in Feature::ALL {
        line(
            &mut doc,
            format_args!("- **{}**: {}.", feature.name(), feature.asserts()),
        );
    }
    doc.push_str(PROTOCOL);
    if !pairs.is_empty() {
        weathered(&mut doc, pairs);
    }
    doc
}

/// The walk is not run here: it needs a server, and takes no peer's crate to compile.
const PROTOCOL: &str = "\n## The protocol\n\n\
     `cargo xtask interop` is about the frames above QUIC, and part of `.ci/run`. A client in Python on aioquic, written from\n\
     [PROTOCOL.md](PROTOCOL.md) and the schema alone (`interop/python/client`), walks through a real server on each of its two\n\
     engines (`interop/python/walk`): every rule that a server can be held to from outside is a named check, every line of\n\
     `proto/tests/vectors` too. It prints a line for each check and one with the counts, and fails if a check fails or\n\
     is missing, if a frame, a field, an error code or a reason of a gap is in the schema and was not spoken, or if a rule of\n\
     the page is named by no check.\n";

fn line(doc: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(doc, "{text}").expect("writing to a string");
}

fn table(doc: &mut String, columns: &[Column], reasons: &mut Vec<String>) {
    let mut head = String::from("|");
    let mut rule = String::from("|---");
    for column in columns {
        write!(head, " | {} {}", column.name, column.version).expect("writing to a string");
        rule.push_str("|---");
    }
    line(doc, format_args!("{head} |\n{rule}|"));
    for feature in Feature::ALL {
        let mut row = format!("| {}", feature.name());
        for column in columns {
            let cells = column.cells.iter().find(|(f, _)| *f == feature);
            let [client, server] = &cells.expect("every feature has run").1;
            let words = [client, server].map(|cell| word(cell, column.name, reasons));
            write!(row, " | {}, {}", words[0], words[1]).expect("writing to a string");
        }
        line(doc, format_args!("{row} |"));
    }
}

fn word(cell: &Outcome, peer: &str, reasons: &mut Vec<String>) -> String {
    match cell {
        Outcome::Pass => "pass".into(),
        Outcome::Fail(_) => "**FAIL**".into(),
        Outcome::NotOffered(why) => {
            let reason = format!("{peer}: {why}.");
            let place = reasons
                .iter()
                .position(|r| *r == reason)
                .unwrap_or_else(|| {
                    reasons.push(reason);
                    reasons.len() - 1
                });
            format!("({})", place + 1)
        }
    }
}

fn weathered(doc: &mut String, pairs: &[Weathered]) {
    doc.push_str(
        "\n## In bad weather\n\n\
         Roadstead and quiche over the seeded network of `quic/tests` with virtual time: loss, reordering,\n\
         duplication, delay, corruption, a small MTU and a NAT that rebinds, drawn from the seed. Each life\n\
         is a handshake, echoes with key updates between, datagrams and a close: everything arrives once and\n\
         in order or the connection closes with a reason, and Roadstead's end returns to its idle size.\n\n\
         | | seeds | connected | all arrived | closed with a reason | failing seeds |\n|---|---|---|---|---|---|\n",
    );
    for pair in pairs {
        line(
            doc,
            format_args!(
                "| {} | {} | {} | {} | {} | {:?} |",
                pair.name, pair.seeds, pair.connected, pair.arrived, pair.closed, pair.failed
            ),
        );
    }
    doc.push_str(
        "\nMost of the closings are quiche's: after a rebind it sometimes takes a packet that holds one ACK for an\n\
         invalid state (PROTOCOL_VIOLATION), and sometimes goes on sending to the address that is gone. A seed\n\
         fixes the network, not the keys, so a life may differ from run to run.\n",
    );
}
