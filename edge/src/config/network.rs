//! A block of addresses, as `10.0.0.0/8`.

use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// The block of so many leading bits that an address is in. An IPv4 address that is written as IPv6
    /// (RFC 4291 section 2.5.5.2) is that IPv4 address.
    pub(crate) fn of(address: IpAddr, bits_v4: u8, bits_v6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let rest = 32 - u32::from(bits_v4.min(32));
                let base = u32::MAX.checked_shl(rest).unwrap_or(0) & address.to_bits();
                let (base, bits) = (IpAddr::V4(base.into()), bits_v4.min(32));
                Self { base, bits }
            }
            IpAddr::V6(address) => {
                let rest = 128 - u32::from(bits_v6.min(128));
                let base = u128::MAX.checked_shl(rest).unwrap_or(0) & address.to_bits();
                let (base, bits) = (IpAddr::V6(base.into()), bits_v6.min(128));
                Self { base, bits }
            }
        }
    }

    /// Its lowest address and how many leading bits count.
    pub(crate) const fn parts(&self) -> (IpAddr, u8) {
        (self.base, self.bits)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        Self::of(address, self.bits, self.bits).base == self.base
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network such as 10.0.0.0/8 or 2001:db8::/32");
        let (base, bits) = text.split_once('/').ok_or_else(wrong)?;
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().map_err(|_| wrong())?;
        let network = Self::of(base, bits, bits);
        if network != (Self { base, bits }) {
            return Err(format!("{text:?} has bits behind its prefix"));
        }
        Ok(network)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_contains_what_begins_like_it() {
        assert!(network("127.0.0.0/8").contains(address("127.200.3.4")));
        assert!(!network("127.0.0.0/8").contains(address("128.0.0.1")));
        assert!(network("127.0.0.0/8").contains(address("::ffff:127.0.0.1")));
        assert!(!network("127.0.0.0/8").contains(address("7f00::1")));
        assert!(network("2001:db8::/32").contains(address("2001:db8:1::2")));
        assert!(!network("2001:db8::/32").contains(address("2001:db9::")));
        assert!(network("0.0.0.0/0").contains(address("8.8.8.8")));
        assert!(!network("0.0.0.0/0").contains(address("::1")));
        assert!(network("::1/128").contains(address("::1")));
    }

    #[test]
    fn addresses_of_one_block_are_one() {
        let of = |text| Network::of(address(text), 32, 64);
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        let of = |text| Network::of(address(text), 24, 48);
        assert_eq!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn what_is_no_network_is_named() {
        let texts = [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "x/8",
            "::/129",
            "::1/-1",
        ];
        for text in texts {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
