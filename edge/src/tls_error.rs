//! What is wrong with a certificate and its key, by file and in words: the TLS library knows neither.

use roadstead_net::Error;

use crate::config::Config;
use crate::files;

/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The error of a chain and a key that were read from the files of this configuration.
pub(crate) fn explain(config: &Config, chain: &[u8], key: &[u8], error: &Error) -> anyhow::Error {
    let (chain_path, key_path) = (
        files::certificate_path(config),
        files::certificate_key_path(config),
    );
    let (chain_path, key_path) = (chain_path.display(), key_path.display());
    for (path, text) in [(&chain_path, chain), (&key_path, key)] {
        if text.starts_with(BYTE_ORDER_MARK) {
            return anyhow::anyhow!(
                "{path} begins with a byte order mark: save it without one ({error})"
            );
        }
    }
    if contains(key, "BEGIN ENCRYPTED PRIVATE KEY") || contains(key, "Proc-Type: 4,ENCRYPTED") {
        return anyhow::anyhow!(
            "{key_path} is encrypted, and nobody is there to type a password: decrypt it with \
             `openssl pkey -in {key_path} -out KEY` ({error})"
        );
    }
    if !contains(chain, "-----BEGIN CERTIFICATE-----") {
        return anyhow::anyhow!("{chain_path} holds no certificate in PEM ({error})");
    }
    if !contains(key, "PRIVATE KEY-----") {
        return anyhow::anyhow!("{key_path} holds no private key in PEM ({error})");
    }
    let text = error.to_string();
    if text.contains("KeyMismatch") {
        return anyhow::anyhow!(
            "{key_path} is not the key of the first certificate in {chain_path}: the server's own \
             certificate comes first, then those that signed it ({error})"
        );
    }
    if text.contains("UnsupportedCertVersion") {
        return anyhow::anyhow!(
            "{chain_path} holds a certificate of X.509 version 1, which clients refuse: make one of \
             version 3, with subjectAltName ({error})"
        );
    }
    anyhow::anyhow!("certificate {chain_path} with key {key_path}: {error}")
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len())
        .any(|window| window == part.as_bytes())
}
