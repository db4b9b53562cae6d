//! The door for the fuzz targets (`fuzz/`): what they call and nobody else can. Absent without the feature.

use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey};
use roadstead_proto::{DeviceId, ErrorCode, UserId};

use crate::config::{Config, Tokens};
use crate::resume::{Claims, ResumeKeys, ResumeTokens};
use crate::token::Verifier;

/// Checks credentials as a worker does.
pub struct Credentials {
    verifier: Verifier,
    resume: ResumeTokens,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// With a public Ed25519 key for tokens and a secret one for resume tokens.
    ///
    /// # Panics
    /// If the public key is none.
    #[must_use]
    pub fn new(public: &[u8], resume: [u8; 32]) -> Self {
        let key = DecodingKey::from_ed_der(public);
        let jwk = Jwk::from_decoding_key(&key, Some(Algorithm::EdDSA)).expect("a public key");
        let jwks = JwkSet { keys: vec![jwk] };
        let keys = ResumeKeys::from_bytes(&resume).expect("one key");
        Self {
            verifier: Verifier::new(&jwks, &Tokens::default()).expect("a key that was made here"),
            resume: ResumeTokens::new(&keys, 100, 1_000),
        }
    }

    /// The user that a signed token proves.
    ///
    /// # Errors
    /// What the client is told.
    pub fn verify(&self, token: &str) -> Result<UserId, ErrorCode> {
        self.verifier.verify(token).map(|proved| proved.user)
    }

    /// A resume token that is valid for 100 s.
    #[must_use]
    pub fn issue(&self, user: UserId, device: DeviceId, unix_s: u64) -> Bytes {
        let claims = Claims {
            user,
            checked_s: unix_s,
            counter: Some(1),
        };
        self.resume.issue(claims, device, unix_s)
    }

    /// The user that a resume token proves.
    ///
    /// # Errors
    /// What the client is told.
    pub fn resume(&self, token: &[u8], device: DeviceId, unix_s: u64) -> Result<UserId, ErrorCode> {
        let claims = self.resume.verify(token, device, unix_s);
        claims.map(|claims| claims.user)
    }
}

/// Number of shards and heartbeat of a configuration file, if the server would start with it.
#[must_use]
pub fn config(text: &str) -> Option<(u16, Duration)> {
    let config: Config = toml::from_str(text).ok()?;
    config.check().ok()?;
    Some((config.shard_count(), config.heartbeat()))
}

/// The documented configuration file.
#[must_use]
pub fn config_example() -> &'static str {
    crate::config::DEFAULT_FILE
}
