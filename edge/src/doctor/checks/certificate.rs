//! The certificate that newcomers are shown.

use crate::doctor::finding::{Finding, Want};
use crate::doctor::grouped;
use crate::doctor::host::Host;

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
