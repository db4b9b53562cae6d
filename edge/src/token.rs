//! Signed tokens: who may open a session.
//!
//! A token is a JWT (RFC 7519) signed with EdDSA and nothing else, so it can not choose its algorithm. What
//! is looked at, and in which order: PROTOCOL.md P14.

use anyhow::Context;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use roadstead_proto::{ErrorCode, UserId};
use serde::{Deserialize, Serialize};

use crate::{cli, clock, config, files};

/// Hosts' clocks differ by seconds, not by minutes: so long a token is good before `nbf` and after `exp`.
const LEEWAY_S: u64 = 5;

/// Keys that one token is checked with, 52 us each: whoever sends junk chooses how many are tried. A set that is
/// being rotated has two keys of an issuer, the old one and the new one; this is two issuers that rotate at once.
const KEYS_TRIED_MAX: usize = 4;

/// Bytes of an Ed25519 public key (RFC 8032 section 5.1.5).
const PUBLIC_KEY_BYTES: usize = 32;

/// What `roadstead token` puts into a token.
#[derive(Debug, Serialize)]
struct Claims {
    /// The user id, decimal.
    sub: String,
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
}

/// What is read of a token beside what the library checks. Claims that are not named here are ignored.
#[derive(Deserialize)]
struct Proven {
    sub: String,
    /// One issuer, not a list (RFC 7519 section 4.1.1).
    #[serde(rename = "iss")]
    _iss: String,
    /// A number if it is there (section 4.1.6): a user who was signed out after that needs another token.
    iat: Option<f64>,
}

/// What a token proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proved {
    pub(crate) user: UserId,
    /// When it was issued, in seconds since the Unix epoch; 0 if it does not say.
    pub(crate) issued_s: u64,
}

impl Proven {
    fn proved(&self) -> Result<Proved, ErrorCode> {
        Ok(Proved {
            user: user(&self.sub)?,
            issued_s: self.iat.map_or(0, whole_seconds),
        })
    }
}

/// Seconds without their fraction; 0 for what lies before the epoch or is no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast takes the nearest value there is"
)]
fn whole_seconds(seconds: f64) -> u64 {
    seconds as u64
}

/// A key that may sign tokens.
struct Key {
    id: Option<String>,
    key: DecodingKey,
}

/// Checks tokens against the keys of a JWKS file.
pub(crate) struct Verifier {
    keys: Vec<Key>,
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
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        // Keys of other kinds are passed over (RFC 7517 section 5): they sign something else.
        let ours = jwks.keys.iter().filter(|jwk| is_for_tokens(jwk));
        let keys = ours.map(Key::new).collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(
            !keys.is_empty(),
            "the JWKS file holds no Ed25519 key among its {}",
            jwks.keys.len()
        );
        if keys.len() > KEYS_TRIED_MAX {
            let keys = keys.len();
            tracing::warn!(
                keys,
                "a token that does not name its key (kid) is tried with the first {KEYS_TRIED_MAX} only"
            );
        }
        Ok(Self { keys, validation })
    }

    /// Whom a token proves, and since when it can.
    pub(crate) fn verify(&self, token: &str) -> Result<Proved, ErrorCode> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| ErrorCode::TokenInvalid)?;
        // What must be understood is not (RFC 7515 section 4.1.11).
        if header.crit.is_some() {
            return Err(ErrorCode::TokenInvalid);
        }
        let mut refusal = ErrorCode::TokenInvalid;
        for key in self.candidates(header.kid.as_deref()) {
            match jsonwebtoken::decode::<Proven>(token, key, &self.validation) {
                Ok(data) => return data.claims.proved(),
                Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                    refusal = ErrorCode::TokenExpired;
                }
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// The keys that may have signed a token: those of the id that it names and then those without one, or, if
    /// it names none, any.
    fn candidates<'a>(&'a self, named: Option<&'a str>) -> impl Iterator<Item = &'a DecodingKey> {
        let of_that_id = move |key: &&Key| named.is_some() && key.id.as_deref() == named;
        let others = move |key: &&Key| named.is_none() || key.id.is_none();
        let first = self.keys.iter().filter(of_that_id);
        let keys = first.chain(self.keys.iter().filter(others));
        keys.take(KEYS_TRIED_MAX).map(|key| &key.key)
    }
}

impl Key {
    fn new(jwk: &Jwk) -> anyhow::Result<Self> {
        let id = jwk.common.key_id.clone();
        let key = DecodingKey::from_jwk(jwk).context("a key of the JWKS file")?;
        let bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len);
        anyhow::ensure!(
            bytes == PUBLIC_KEY_BYTES,
            "the key {} of the JWKS file has {bytes} bytes, not {PUBLIC_KEY_BYTES}",
            id.as_deref().unwrap_or("without kid")
        );
        Ok(Self { id, key })
    }
}

/// Whether this is a key for EdDSA signatures (RFC 8037 section 2).
fn is_for_tokens(jwk: &Jwk) -> bool {
    let is_ed25519 = matches!(&jwk.algorithm, AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519);
    let signs = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    is_ed25519 && signs
}

/// The user of a subject, which has one spelling: "+7" and "007" are nobody.
fn user(subject: &str) -> Result<UserId, ErrorCode> {
    let id: u64 = subject.parse().map_err(|_| ErrorCode::TokenInvalid)?;
    if id.to_string() != subject {
        return Err(ErrorCode::TokenInvalid);
    }
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
        assert_eq!(proved(&verifier, &token), Ok(user_7()));
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

    fn proved(verifier: &Verifier, token: &str) -> Result<UserId, ErrorCode> {
        verifier.verify(token).map(|proved| proved.user)
    }

    /// Seconds of Unix time.
    fn now_s() -> u64 {
        clock::unix_ms() / 1_000
    }

    /// Claims that are in order, with others in their place.
    fn claims(others: serde_json::Value) -> serde_json::Value {
        let mut claims = serde_json::json!({
            "sub": "7", "iss": "roadstead", "aud": "roadstead", "iat": now_s(), "exp": now_s() + 60,
        });
        for (name, value) in others.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    }

    fn header(kid: Option<&str>) -> Header {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = kid.map(String::from);
        header
    }

    fn signed(pem: &[u8], header: &Header, claims: &serde_json::Value) -> String {
        let key = EncodingKey::from_ed_pem(pem).expect("a key");
        jsonwebtoken::encode(header, claims, &key).expect("signed")
    }

    /// What becomes of claims that the development key has signed.
    fn verdict(others: serde_json::Value) -> Result<UserId, ErrorCode> {
        let (verifier, pem, _data) = set_up();
        proved(
            &verifier,
            &signed(&pem, &header(Some("development")), &claims(others)),
        )
    }

    #[test]
    fn fc7_p14_a_token_is_not_good_before_its_time() {
        let soon = now_s() + 3_600;
        assert_eq!(
            verdict(serde_json::json!({ "nbf": soon })),
            Err(ErrorCode::TokenInvalid)
        );
        let fractional = soon as f64 + 0.5;
        assert_eq!(
            verdict(serde_json::json!({ "nbf": fractional })),
            Err(ErrorCode::TokenInvalid)
        );
        assert_eq!(
            verdict(serde_json::json!({ "nbf": "2026" })),
            Err(ErrorCode::TokenInvalid)
        );
        // Another host's clock, two seconds ahead.
        for nbf in [now_s() + 2, now_s(), 0] {
            assert_eq!(verdict(serde_json::json!({ "nbf": nbf })), Ok(user_7()));
        }
    }

    #[test]
    fn fc7_p14_a_token_that_asks_to_be_understood_is_refused() {
        let (verifier, pem, _data) = set_up();
        for crit in [vec!["exp".to_owned()], vec!["b64".to_owned()], Vec::new()] {
            let mut header = header(Some("development"));
            header.crit = Some(crit);
            let token = signed(&pem, &header, &claims(serde_json::json!({})));
            assert_eq!(verifier.verify(&token), Err(ErrorCode::TokenInvalid));
        }
    }

    #[test]
    fn fc7_p14_every_legal_spelling_of_a_claim_is_taken() {
        for legal in [
            serde_json::json!({ "aud": ["elsewhere", "roadstead"] }),
            serde_json::json!({ "aud": ["roadstead"] }),
            serde_json::json!({ "exp": now_s() as f64 + 60.25 }),
            serde_json::json!({ "iat": now_s() as f64 - 0.5 }),
            serde_json::json!({ "nbf": now_s() as f64 - 0.5 }),
            serde_json::json!({ "jti": "x", "scope": ["y"], "iat": now_s() }),
        ] {
            assert_eq!(verdict(legal.clone()), Ok(user_7()), "{legal}");
        }
        for illegal in [
            serde_json::json!({ "aud": ["elsewhere"] }),
            serde_json::json!({ "aud": [] }),
            serde_json::json!({ "iss": ["roadstead"] }),
            serde_json::json!({ "exp": "tomorrow" }),
            serde_json::json!({ "exp": null }),
            serde_json::json!({ "exp": 1e300 }),
            serde_json::json!({ "iat": "yesterday" }),
            serde_json::json!({ "sub": 7 }),
        ] {
            let refused = Err(ErrorCode::TokenInvalid);
            assert_eq!(verdict(illegal.clone()), refused, "{illegal}");
        }
        let old = serde_json::json!({ "exp": now_s() as f64 - 60.5 });
        assert_eq!(verdict(old), Err(ErrorCode::TokenExpired));
    }

    #[test]
    fn fc7_p14_when_a_token_was_issued_need_not_be_said() {
        let (verifier, pem, _data) = set_up();
        let mut claims = claims(serde_json::json!({}));
        claims.as_object_mut().expect("an object").remove("iat");
        let token = signed(&pem, &header(Some("development")), &claims);
        assert_eq!(proved(&verifier, &token), Ok(user_7()));
    }

    #[test]
    fn df15_p14_when_a_token_was_issued_is_read() {
        let issued_at = |iat: serde_json::Value| {
            let (verifier, pem, _data) = set_up();
            let claims = claims(serde_json::json!({ "iat": iat }));
            let token = signed(&pem, &header(Some("development")), &claims);
            verifier.verify(&token).map(|proved| proved.issued_s)
        };
        assert_eq!(issued_at(1_700_000_000_u64.into()), Ok(1_700_000_000));
        assert_eq!(issued_at(1_700_000_000.75.into()), Ok(1_700_000_000));
        assert_eq!(issued_at(serde_json::Value::Null), Ok(0));
        for (strange, read) in [(-1.0, 0), (1e300, u64::MAX)] {
            assert_eq!(issued_at(strange.into()), Ok(read));
        }
    }

    #[test]
    fn fc7_p14_a_user_has_one_spelling() {
        for other in ["+7", "007", " 7", "7 ", "7.0", "0x7", "0", "", "-7", "٧"] {
            let sub = serde_json::json!({ "sub": other });
            assert_eq!(verdict(sub), Err(ErrorCode::TokenInvalid), "{other:?}");
        }
        let beyond = serde_json::json!({ "sub": "18446744073709551616" });
        assert_eq!(verdict(beyond), Err(ErrorCode::TokenInvalid));
        let last = serde_json::json!({ "sub": "18446744073709551615" });
        assert_eq!(verdict(last).map(UserId::get), Ok(u64::MAX));
    }

    /// A key pair: the private key in PEM and the public one for a JWKS.
    fn key_pair(id: Option<&str>) -> (Vec<u8>, Jwk) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let key = DecodingKey::from_ed_der(pair.public_key_raw());
        let mut jwk = Jwk::from_decoding_key(&key, Some(Algorithm::EdDSA)).expect("a key");
        jwk.common.key_id = id.map(String::from);
        (pair.serialize_pem().into_bytes(), jwk)
    }

    fn verifier(keys: Vec<Jwk>) -> anyhow::Result<Verifier> {
        Verifier::new(&JwkSet { keys }, &config::Tokens::default())
    }

    #[test]
    fn fc7_p14_a_token_that_names_no_key_is_tried_with_each_up_to_a_bound() {
        let pairs: Vec<_> = (0..=KEYS_TRIED_MAX)
            .map(|n| key_pair(Some(&format!("key-{n}"))))
            .collect();
        let verifier = verifier(pairs.iter().map(|(_, jwk)| jwk.clone()).collect());
        let verifier = verifier.expect("valid keys");
        let claims = claims(serde_json::json!({}));
        for (n, (pem, _)) in pairs.iter().enumerate() {
            let unnamed = verifier.verify(&signed(pem, &header(None), &claims));
            assert_eq!(unnamed.is_ok(), n < KEYS_TRIED_MAX, "key {n}");
            let id = format!("key-{n}");
            let named = proved(&verifier, &signed(pem, &header(Some(&id)), &claims));
            assert_eq!(named, Ok(user_7()), "{id}");
            let misnamed = verifier.verify(&signed(pem, &header(Some("another")), &claims));
            assert_eq!(misnamed, Err(ErrorCode::TokenInvalid), "{id}");
        }
        let (stranger, _) = key_pair(None);
        let forged = verifier.verify(&signed(&stranger, &header(None), &claims));
        assert_eq!(forged, Err(ErrorCode::TokenInvalid));
    }

    #[test]
    fn fc7_p14_two_keys_of_one_name_are_both_tried() {
        let (one, two) = (key_pair(Some("k")), key_pair(Some("k")));
        let verifier = verifier(vec![one.1, two.1]).expect("valid keys");
        for pem in [one.0, two.0] {
            let token = signed(&pem, &header(Some("k")), &claims(serde_json::json!({})));
            assert_eq!(proved(&verifier, &token), Ok(user_7()));
        }
    }

    /// An identity service publishes keys of all kinds; an HMAC of a public key has fooled others (RFC 8725
    /// section 2.1).
    #[test]
    fn fc7_p14_no_other_algorithm_ever() {
        let (pem, ours) = key_pair(None);
        let secret: Jwk =
            serde_json::from_str(r#"{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQ"}"#)
                .expect("a key");
        let rsa: Jwk =
            serde_json::from_str(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#).expect("a key");
        let exchange: Jwk = serde_json::from_str(
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        )
        .expect("a key");
        let later: Jwk =
            serde_json::from_str(r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#).expect("a key");
        let foreign = vec![secret, rsa, exchange, later];
        let error = verifier(foreign.clone())
            .expect_err("none of them")
            .to_string();
        assert!(error.contains("no Ed25519 key among its 4"), "{error}");

        let keys = foreign.into_iter().chain([ours]).collect();
        let verifier = verifier(keys).expect("one of them");
        let claims = claims(serde_json::json!({}));
        let token = signed(&pem, &header(None), &claims);
        assert_eq!(proved(&verifier, &token), Ok(user_7()));
        let hmac = EncodingKey::from_secret(b"secret-secret-secret");
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &hmac);
        let verdict = verifier.verify(&token.expect("signed"));
        assert_eq!(verdict, Err(ErrorCode::TokenInvalid));
    }

    #[test]
    fn fc7_p14_a_key_of_another_length_is_named() {
        let short = r#"{"kty":"OKP","crv":"Ed25519","kid":"short","x":"AQAB"}"#;
        let short = serde_json::from_str(short).expect("a JWK");
        let error = verifier(vec![short]).expect_err("too short").to_string();
        assert!(
            error.contains("short") && error.contains("3 bytes"),
            "{error}"
        );
    }
}
