//! Session tickets (T14): only what these keys sealed opens, and to what was sealed.

use std::sync::OnceLock;

use roadstead_net::fuzzing::Tickets;
use roadstead_net::tls::TicketKeys;

fn tickets() -> &'static Tickets {
    static TICKETS: OnceLock<Tickets> = OnceLock::new();
    TICKETS.get_or_init(|| {
        let keys = TicketKeys::from_bytes(&[7; 64]).expect("two keys");
        Tickets::new(&keys)
    })
}

/// First byte: 0 for a ticket of the peer; 1 for a file of keys; anything else for the state of a ticket
/// of ours, of which the peer then changes one byte.
pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    match first {
        0 => assert_eq!(tickets().open(rest), None, "nobody else has the keys"),
        1 => {
            if let Ok(keys) = TicketKeys::from_bytes(rest) {
                assert_eq!(keys.to_bytes(), rest);
                drop(Tickets::new(&keys));
            }
        }
        at => changed(usize::from(*at), rest),
    }
}

fn changed(at: usize, state: &[u8]) {
    let mut ticket = tickets().seal(state).expect("it seals");
    assert_eq!(tickets().open(&ticket).as_deref(), Some(state));
    let at = at % ticket.len();
    ticket[at] ^= 0x10;
    assert_eq!(tickets().open(&ticket), None, "byte {at}");
    assert_eq!(tickets().open(&ticket[..at]), None, "cut at {at}");
}

/// A ticket that looks right, keys, states.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut foreign = Tickets::new(&TicketKeys::from_bytes(&[9; 32]).expect("a key"))
        .seal(b"state")
        .expect("it seals");
    // The nonce is drawn; a seed is the same every time.
    foreign[8..].fill(3);
    vec![
        [&[0][..], &foreign].concat(),
        [&[1][..], &[5; 32]].concat(),
        [&[1][..], &[5; 33]].concat(),
        b"\x02state".to_vec(),
        vec![40],
    ]
}
