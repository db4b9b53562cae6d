//! Signed tokens: who may open a session.

use std::collections::HashMap;

use anyhow::Context;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use roadstead_proto::{ErrorCode, UserId};
use serde::{Deserialize, Serialize};

use crate::{cli, clock, config, files};

/// What a token says. Claims that are not named here are ignored.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// The user id, decimal.
    sub: String,
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
}

/// Checks tokens against the keys of a JWKS file.
pub(crate) struct Verifier {
    by_id: HashMap<String, DecodingKey>,
    without_id: Vec<DecodingKey>,
    validation: Validation,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    pub(crate) fn new(jwks: &JwkSet, tokens: &config::Tokens) -> anyhow::Result<Self> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&tokens.issuer]);
        validation.set_audience(&[&tokens.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Hosts' clocks differ by seconds, not by minutes.
        validation.leeway = 5;
        let mut verifier = Self {
            by_id: HashMap::new(),
            without_id: Vec::new(),
            validation,
        };
        for jwk in &jwks.keys {
            let key = DecodingKey::from_jwk(jwk).context("a key of the JWKS file")?;
            match &jwk.common.key_id {
                Some(id) => drop(verifier.by_id.insert(id.clone(), key)),
                None => verifier.without_id.push(key),
            }
        }
        anyhow::ensure!(!jwks.keys.is_empty(), "the JWKS file holds no keys");
        Ok(verifier)
    }

    /// The user that a token proves.
    pub(crate) fn verify(&self, token: &str) -> Result<UserId, ErrorCode> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| ErrorCode::TokenInvalid)?;
        let named = header.kid.as_ref().and_then(|id| self.by_id.get(id));
        let mut refusal = ErrorCode::TokenInvalid;
        for key in named.into_iter().chain(&self.without_id) {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                Ok(data) => return user(&data.claims.sub),
                Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                    refusal = ErrorCode::TokenExpired;
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

fn user(subject: &str) -> Result<UserId, ErrorCode> {
    let id = subject.parse().map_err(|_| ErrorCode::TokenInvalid)?;
    UserId::new(id).map_err(|_| ErrorCode::TokenInvalid)
}

/// Prints a development token.
pub(crate) fn print(arguments: &cli::Token) -> anyhow::Result<()> {
    let path = files::token_key(&arguments.data);
    let pem = std::fs::read(&path).with_context(|| {
        format!(
            "{}: `roadstead serve` makes it on its first start",
            path.display()
        )
    })?;
    let user = UserId::new(arguments.user).context("--user")?;
    let tokens = config::Tokens::default();
    cli::line(&sign(&pem, user, &tokens, arguments.valid_for)?)
}

fn sign(
    pem: &[u8],
    user: UserId,
    tokens: &config::Tokens,
    valid_for_s: u64,
) -> anyhow::Result<String> {
    let key = EncodingKey::from_ed_pem(pem).context("the signing key")?;
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("development".into());
    let iat = clock::unix_ms() / 1_000;
    let claims = Claims {
        sub: user.to_string(),
        iss: tokens.issuer.clone(),
        aud: tokens.audience.clone(),
        iat,
        exp: iat + valid_for_s,
    };
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn set_up() -> (Verifier, Vec<u8>, tempfile::TempDir) {
        let data = tempfile::tempdir().expect("a directory");
        let config = Config {
            data: data.path().into(),
            ..Config::default()
        };
        let files = files::load(&config).expect("made");
        let verifier = Verifier::new(&files.jwks, &config.tokens).expect("valid keys");
        let pem = std::fs::read(files::token_key(data.path())).expect("made");
        (verifier, pem, data)
    }

    fn user_7() -> UserId {
        UserId::new(7).expect("not 0")
    }

    #[test]
    fn a_signed_token_proves_its_user() {
        let (verifier, pem, _data) = set_up();
        let token = sign(&pem, user_7(), &config::Tokens::default(), 60).expect("signed");
        assert_eq!(verifier.verify(&token), Ok(user_7()));
    }

    #[test]
    fn another_key_proves_nobody() {
        let (verifier, _, _data) = set_up();
        let (_, other_pem, _other) = set_up();
        let token = sign(&other_pem, user_7(), &config::Tokens::default(), 60).expect("signed");
        assert_eq!(verifier.verify(&token), Err(ErrorCode::TokenInvalid));
    }

    #[test]
    fn forged_claims_are_refused() {
        let (verifier, pem, _data) = set_up();
        let mine = sign(&pem, user_7(), &config::Tokens::default(), 60).expect("signed");
        let theirs = sign(
            &pem,
            UserId::new(8).expect("not 0"),
            &config::Tokens::default(),
            60,
        );
        let theirs = theirs.expect("signed");
        let parts: Vec<&str> = mine.split('.').collect();
        let claims = theirs.split('.').nth(1).expect("three parts");
        let forged = format!("{}.{claims}.{}", parts[0], parts[2]);
        assert_eq!(verifier.verify(&forged), Err(ErrorCode::TokenInvalid));
        assert_eq!(verifier.verify("no token"), Err(ErrorCode::TokenInvalid));
        assert_eq!(verifier.verify(""), Err(ErrorCode::TokenInvalid));
    }

    #[test]
    fn an_old_token_is_expired_not_invalid() {
        let (verifier, pem, _data) = set_up();
        let key = EncodingKey::from_ed_pem(&pem).expect("a key");
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("development".into());
        let claims = Claims {
            sub: "7".into(),
            iss: "roadstead".into(),
            aud: "roadstead".into(),
            iat: 1,
            exp: 2,
        };
        let token = jsonwebtoken::encode(&header, &claims, &key).expect("signed");
        assert_eq!(verifier.verify(&token), Err(ErrorCode::TokenExpired));
    }

    #[test]
    fn another_audience_is_refused() {
        let (verifier, pem, _data) = set_up();
        let tokens = config::Tokens {
            audience: "elsewhere".into(),
            ..config::Tokens::default()
        };
        let token = sign(&pem, user_7(), &tokens, 60).expect("signed");
        assert_eq!(verifier.verify(&token), Err(ErrorCode::TokenInvalid));
    }
}
