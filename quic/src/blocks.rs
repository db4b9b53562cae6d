//! Blocks of addresses: what counts as one peer, as whoever has one address of a block has them all.

use std::net::IpAddr;

/// Which addresses are one peer, and which are counted by none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// Leading bits that make two IPv4 addresses one.
    pub bits_v4: u8,
    /// The same for IPv6, where the least network has 64.
    pub bits_v6: u8,
    /// Networks, by an address and its leading bits, that are not counted: load generators, a relay.
    pub unlimited: Vec<(IpAddr, u8)>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            bits_v4: 32,
            bits_v6: 64,
            unlimited: Vec::new(),
        }
    }
}

/// A block of addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Block {
    is_v6: bool,
    base: u128,
}

impl Blocks {
    /// The block of an address; `None` for one that is not counted. An IPv4 address that is written as IPv6
    /// (RFC 4291 2.5.5.2) is that IPv4 address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<Block> {
        let unlimited = |(base, bits): &(IpAddr, u8)| {
            block(address, *bits, *bits) == block(*base, *bits, *bits)
        };
        if self.unlimited.iter().any(unlimited) {
            return None;
        }
        Some(block(address, self.bits_v4, self.bits_v6))
    }
}

fn block(address: IpAddr, bits_v4: u8, bits_v6: u8) -> Block {
    let cut = |value: u128, width: u8, bits: u8| {
        let rest = u32::from(width - bits.min(width));
        value & u128::MAX.checked_shl(rest).unwrap_or(0)
    };
    match address.to_canonical() {
        IpAddr::V4(address) => Block {
            is_v6: false,
            base: cut(address.to_bits().into(), 32, bits_v4),
        },
        IpAddr::V6(address) => Block {
            is_v6: true,
            base: cut(address.to_bits(), 128, bits_v6),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_host_of_ipv4_and_a_network_of_ipv6_are_one_peer() {
        let blocks = Blocks::default();
        let same = |a: &str, b: &str| blocks.of(ip(a)) == blocks.of(ip(b));
        assert!(same("192.0.2.1", "192.0.2.1") && !same("192.0.2.1", "192.0.2.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"), "written as IPv6");
        assert!(!same("0.0.0.0", "::"), "families are apart");
    }

    #[test]
    fn bits_have_two_ends() {
        for bits in [0, 1, 31, 32, 33, 127, 128, 255] {
            let blocks = Blocks {
                bits_v4: bits,
                bits_v6: bits,
                unlimited: Vec::new(),
            };
            let one = blocks.of(ip("255.255.255.255")) == blocks.of(ip("0.0.0.1"));
            assert_eq!(one, bits == 0, "{bits}");
            let one = blocks.of(ip("ffff::")) == blocks.of(ip("::2"));
            assert_eq!(one, bits == 0, "{bits}");
        }
    }

    #[test]
    fn a_network_may_be_counted_by_none() {
        let blocks = Blocks {
            unlimited: vec![(ip("127.0.0.0"), 8), (ip("::1"), 128)],
            ..Blocks::default()
        };
        for free in ["127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(blocks.of(ip(free)), None, "{free}");
        }
        assert!(blocks.of(ip("128.0.0.1")).is_some() && blocks.of(ip("::2")).is_some());
    }
}
