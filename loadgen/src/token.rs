//! Login tokens: signed when a session connects, not kept (T14).

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roadstead_proto::UserId;
use serde::Serialize;

/// What the server expects as issuer and audience.
const REALM: &str = "roadstead";

/// How long a token is good: longer than any handshake takes, as nobody stores it.
const LIFETIME_S: u64 = 600;

/// Tolerance for a server whose clock is behind.
const SKEW_S: u64 = 30;

/// Signs tokens with the deployment's development key.
#[derive(Clone)]
pub(crate) struct TokenSigner {
    key: EncodingKey,
    header: Header,
}

#[derive(Serialize)]
struct Claims {
    sub: String,
    iss: &'static str,
    aud: &'static str,
    iat: u64,
    exp: u64,
}

impl TokenSigner {
    /// Reads an Ed25519 private key in PEM (PKCS 8), known to the server by `key_id`.
    pub(crate) fn from_pem(pem: &[u8], key_id: &str) -> Result<Self> {
        let key = EncodingKey::from_ed_pem(pem).context("no Ed25519 private key in PEM")?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key_id.into());
        Ok(Self { key, header })
    }

    /// A token that proves to be `user`.
    pub(crate) fn sign(&self, user: UserId) -> Result<String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?
            .as_secs();
        let claims = Claims {
            sub: user.to_string(),
            iss: REALM,
            aud: REALM,
            iat: now - SKEW_S,
            exp: now + LIFETIME_S,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key).context("signing a token")
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSigner(..)")
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    // A key pair for tests only.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFxx/JqyxgAYw0NONicAmeHfCl4P/4M/rAKBQsV4uaMr
-----END PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAN45Zd9I9UYUXGMFZFKYMGQzlmurhVWLeeovuD5Fg384=
-----END PUBLIC KEY-----
";

    #[test]
    fn a_token_verifies_and_names_its_user() {
        let signer = TokenSigner::from_pem(PRIVATE.as_bytes(), "development").expect("a key");
        let token = signer
            .sign(UserId::new(42).expect("not 0"))
            .expect("signed");
        assert!(token.len() < roadstead_proto::limits::CREDENTIAL_BYTES_MAX);
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["roadstead"]);
        validation.set_issuer(&["roadstead"]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let key = DecodingKey::from_ed_pem(PUBLIC.as_bytes()).expect("a key");
        let read = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation);
        assert_eq!(read.expect("valid").claims["sub"], "42");
    }

    #[test]
    fn a_file_without_a_key_is_an_error() {
        assert!(TokenSigner::from_pem(b"nothing", "").is_err());
    }
}
