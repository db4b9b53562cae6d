//! The section `[limits]`: how much one user and one address may ask for.

use roadstead::Rate;
use roadstead::rate::PER_SECOND_MAX;
use roadstead_net::config::Blocks;
use serde::Deserialize;

use super::network::Network;

/// Most sends at once that can be configured: a bucket that holds more is as good as no limit.
const BURST_MAX: u32 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) sends_per_s: u32,
    pub(crate) sends_burst: u32,
    pub(crate) recipient_sends_per_s: u32,
    pub(crate) recipient_sends_burst: u32,
    pub(crate) sessions_per_s: u32,
    pub(crate) sessions_burst: u32,
    pub(crate) address_bits_v4: u8,
    pub(crate) address_bits_v6: u8,
    pub(crate) unlimited: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"];
        Self {
            sends_per_s: 200,
            sends_burst: 2_000,
            recipient_sends_per_s: 100,
            recipient_sends_burst: 1_000,
            sessions_per_s: 100,
            sessions_burst: 1_000,
            address_bits_v4: 32,
            address_bits_v6: 64,
            unlimited: loopback
                .map(|text| text.parse().expect("a network"))
                .to_vec(),
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Self {
            sends_per_s,
            sends_burst,
            recipient_sends_per_s,
            recipient_sends_burst,
            sessions_per_s,
            sessions_burst,
            ..
        } = *self;
        let rates = [sends_per_s, recipient_sends_per_s, sessions_per_s];
        anyhow::ensure!(
            rates.iter().all(|rate| *rate <= PER_SECOND_MAX),
            "limits are at most {PER_SECOND_MAX} a second; 0 is none"
        );
        let bursts = [sends_burst, recipient_sends_burst, sessions_burst];
        anyhow::ensure!(
            bursts.iter().all(|burst| (1..=BURST_MAX).contains(burst)),
            "limits.sends_burst, recipient_sends_burst and sessions_burst are 1 to {BURST_MAX}"
        );
        anyhow::ensure!(
            (1..=32).contains(&self.address_bits_v4) && (1..=128).contains(&self.address_bits_v6),
            "limits.address_bits_v4 is 1 to 32, address_bits_v6 is 1 to 128"
        );
        Ok(())
    }

    /// Sends of one user.
    pub(crate) fn sends(&self) -> Option<Rate> {
        Rate::new(self.sends_per_s, self.sends_burst)
    }

    /// Sends of one user to one other.
    pub(crate) fn recipient_sends(&self) -> Option<Rate> {
        Rate::new(self.recipient_sends_per_s, self.recipient_sends_burst)
    }

    /// What counts as one address.
    pub(crate) fn blocks(&self) -> Blocks {
        Blocks {
            bits_v4: self.address_bits_v4,
            bits_v6: self.address_bits_v6,
            unlimited: self.unlimited.iter().map(Network::parts).collect(),
        }
    }

    /// New sessions from one address, over all shards.
    pub(crate) fn sessions(&self) -> Option<Rate> {
        Rate::new(self.sessions_per_s, self.sessions_burst)
    }
}
