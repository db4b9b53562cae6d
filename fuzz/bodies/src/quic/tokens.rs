//! Address validation tokens (RFC 9000 8.1; T11): what nobody issued validates no address.

use roadstead_quic::Time;
use roadstead_quic::fuzzing::{AddressTokens, Proof};
use roadstead_quic::packet::ConnectionId;

use super::common::fake::FakeAead;
use super::common::own::{address, client_addr};

const NOW: Time = Time::from_millis(5_000);

fn issuer() -> AddressTokens<FakeAead> {
    AddressTokens::new([5; 32], 1_700_000_000, FakeAead)
}

fn ids() -> [ConnectionId; 2] {
    [[1; 8], [2; 8]].map(|id| ConnectionId::new(&id).expect("short"))
}

/// The two tokens that the address has.
fn issued() -> [Vec<u8>; 2] {
    let [odcid, scid] = ids();
    let tokens = issuer();
    [
        tokens.retry(NOW, client_addr(), &odcid, &scid),
        tokens.fresh(NOW, client_addr(), 7),
    ]
}

/// A token as it came in an Initial.
pub fn run(data: &[u8]) {
    let [odcid, scid] = ids();
    let [retry, fresh] = issued();
    let mut tokens = issuer();
    let proof = tokens.check(NOW, client_addr(), &scid, data);
    let expected = if data == retry {
        Some(Proof::Retried(odcid))
    } else {
        (data == fresh).then_some(Proof::Known)
    };
    assert_eq!(proof, expected);
    if data == retry {
        let again = tokens.check(NOW, client_addr(), &scid, data);
        assert_eq!(again, None, "single use (T11)");
    }
    // Another host never profits.
    assert_eq!(issuer().check(NOW, address(9, 5_000), &scid, data), None);
    let late = Time::from_millis(2 * 86_400_000);
    assert_eq!(issuer().check(late, client_addr(), &scid, data), None);
}

/// Both kinds as issued.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    issued().to_vec()
}
