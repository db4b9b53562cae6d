//! The certificate that newcomers are shown.

use crate::doctor::finding::{Finding, Want};
use crate::doctor::grouped;
use crate::doctor::host::Host;
use crate::validity::Standing;

/// Bytes of a chain above which a handshake takes a round trip more: an address that has not proven itself is
/// sent three times its first 1,200 bytes (RFC 9000 section 8.1), of which the rest of the flight takes some 600.
const CHAIN_BYTES_MAX: u64 = 3_000;

pub(super) fn chain(host: &Host) -> Finding {
    let want = Want::new(
        "certificate_chain",
        format!("at most {} bytes", grouped(CHAIN_BYTES_MAX)),
        "a longer one does not fit what an unproven address may be sent, and each handshake takes a round trip more",
    );
    match &host.chain {
        None => want.ok("not looked at: name a configuration with --config"),
        Some(Err(error)) => want.note(format!("cannot be read: {error}"), ""),
        Some(Ok(bytes)) if *bytes <= CHAIN_BYTES_MAX => want.ok(grouped(*bytes)),
        Some(Ok(bytes)) => want.warning(
            grouped(*bytes),
            "leave out the root and cross-signed certificates; take an ECDSA certificate instead of an RSA one",
        ),
    }
}

pub(super) fn dates(host: &Host) -> Finding {
    let want = Want::new(
        "certificate_dates",
        "valid now and for two weeks more",
        "clients refuse a certificate outside of its dates, and no new session is let in",
    );
    let validity = match &host.validity {
        None => return want.ok("not looked at: name a configuration with --config"),
        Some(Err(error)) => return want.note(format!("cannot be read: {error}"), ""),
        Some(Ok(validity)) => validity,
    };
    let renew = "renew it, then `systemctl reload roadstead`";
    match validity.standing(host.now_s) {
        Standing::Good => want.ok(format!("until {}", validity.until)),
        Standing::EndsSoon(_) => want.warning(format!("expires {}", validity.until), renew),
        Standing::Over => want.failure(format!("expired {}", validity.until), renew),
        Standing::NotYet => want.failure(
            format!("not valid before {}", validity.from),
            "set this host's clock, or take another certificate",
        ),
    }
}
