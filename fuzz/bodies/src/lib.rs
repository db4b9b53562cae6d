//! What the fuzz targets do with their input.
//!
//! A target is a function of bytes that panics when the code under test breaks a promise. libFuzzer
//! calls it (`fuzz/targets`), and so does the test that replays `fuzz/corpus` with a stable compiler.
//! docs/TESTING.md says how to run them and what to do with a finding.

#![forbid(unsafe_code)]

pub mod core;
pub mod edge;
pub mod proto;
pub mod quic;
pub mod store;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Room and matter: the name of the binary and of the folder of its corpus.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made from real messages where there are any.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:literal => $room:ident::$matter:ident),* $(,)?) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target {
            name: $name,
            run: $room::$matter::run,
            seeds: $room::$matter::seeds,
        }),*];
    };
}

targets! {
    "quic_packet" => quic::packet,
    "quic_frames" => quic::frames,
    "quic_params" => quic::params,
    "quic_tokens" => quic::tokens,
    "quic_hostile" => quic::hostile,
    "quic_operations" => quic::operations,
    "quic_mixed" => quic::mixed,
    "proto_frames" => proto::frames,
    "edge_tokens" => edge::tokens,
    "edge_tickets" => edge::tickets,
    "edge_config" => edge::config,
    "store_values" => store::values,
    "store_log" => store::log,
    "store_seam" => store::seam,
    "core_shard" => core::shard,
}

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Inputs for targets that read a plan out of any bytes: as many as asked for, up to a length, always
/// the same.
fn drawn(count: u64, len_max: u64) -> Vec<Vec<u8>> {
    let mut dice = quic::common::net::Dice(count ^ len_max);
    let mut input = |n: u64| -> Vec<u8> {
        let len = 8 + n * (len_max - 8) / count;
        // Mostly small numbers: choices and lengths, not noise.
        let mut byte = || {
            let [byte, small, ..] = dice.next().to_le_bytes();
            if small < 160 { byte % 16 } else { byte }
        };
        (0..len).map(|_| byte()).collect()
    };
    (1..=count).map(&mut input).collect()
}
