//! What a data directory gets where the operator supplies nothing: a certificate and a key that signs tokens.

use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

/// How long before its making a certificate is valid: clients' clocks may be behind.
const VALID_BEFORE: Duration = Duration::from_secs(86_400);

/// How long after its making: longer than a trial lasts, as nothing renews it and clients trust the file itself;
/// and no longer, so that every date is one that 32 bits and all parsers hold (RFC 5280 section 4.1.2.5).
const VALID_FOR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A certificate that signs itself, and its key: PEM.
pub(crate) fn certificate(names: &[String], unix_s: u64) -> anyhow::Result<(String, String)> {
    let params = certificate_params(names, unix_s)?;
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn certificate_params(names: &[String], unix_s: u64) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("tls.names")?;
    let made = date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_s);
    params.not_before = made - VALID_BEFORE;
    params.not_after = made + VALID_FOR;
    Ok(params)
}

/// A key that signs tokens: PEM of PKCS #8 in its first version. The second (RFC 5958), with the public key in it,
/// is not read by OpenSSL 3.0, nor by what is built on it.
pub(crate) fn token_key() -> anyhow::Result<String> {
    let made = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new());
    let made = made.map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(KeyPair::try_from(made.as_ref())?.serialize_pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-12-01T00:00:00Z.
    const NOW_S: u64 = 1_796_083_200;

    #[test]
    fn fc9_a_certificate_is_valid_from_yesterday_for_ten_years() {
        let params = certificate_params(&["localhost".into()], NOW_S).expect("a name");
        let (from, until) = (params.not_before, params.not_after);
        assert_eq!(from, date_time_ymd(2026, 11, 30));
        assert_eq!((until.year(), u8::from(until.month())), (2036, 11));
    }
}
