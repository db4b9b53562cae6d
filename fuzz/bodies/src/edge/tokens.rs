//! Credentials of a Hello: signed tokens and resume tokens. Only what was signed here proves a user, and
//! the user that it names.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use roadstead_edge::fuzzing::Credentials;
use roadstead_proto::{DeviceId, ErrorCode, UserId};
use serde_json::Value;

/// Seconds that a token may be away from its time: the leeway, and what rounds a fraction.
const LEEWAY_S: f64 = 6.0;

/// Bytes of a resume token of the first version.
const LEN_OF_VERSION_1: usize = 36;

const HEADER: &str = r#"{"typ":"JWT","alg":"EdDSA"}"#;
const CLAIMS: &str = r#"{"sub":"7","iss":"roadstead","aud":"roadstead","iat":1,"exp":4000000000}"#;

struct Keys {
    pair: Ed25519KeyPair,
    credentials: Credentials,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("32 bytes");
        let credentials = Credentials::new(pair.public_key().as_ref(), [4; 32]);
        Keys { pair, credentials }
    })
}

/// First byte: 0 for a token as the client sent it, 1 for claims under a good signature, 2 for header
/// and claims under one, else a resume token of the client at that second.
pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    match (first, std::str::from_utf8(rest)) {
        (0, Ok(token)) => received(token),
        (1, Ok(claims)) => signed(HEADER, claims),
        (2, Ok(text)) => {
            let (header, claims) = text.split_once('\n').unwrap_or((HEADER, text));
            signed(header, claims);
        }
        (0..=2, Err(_)) => {}
        (second, _) => resumed(rest, u64::from(*second)),
    }
}

fn received(token: &str) {
    let verdict = keys().credentials.verify(token);
    match verdict {
        Ok(user) => {
            let body = token.rsplit_once('.').map(|(body, _)| body);
            let ours = sign(HEADER, CLAIMS);
            assert_eq!(body, ours.rsplit_once('.').map(|(body, _)| body));
            assert_eq!(user.get(), 7);
        }
        Err(error) => assert!(
            matches!(error, ErrorCode::TokenInvalid | ErrorCode::TokenExpired),
            "{error:?}"
        ),
    }
}

fn signed(header: &str, claims: &str) {
    let Ok(user) = keys().credentials.verify(&sign(header, claims)) else {
        return;
    };
    let named = claims.contains(&user.to_string()) || claims.contains('\\');
    assert!(named, "{user} is not in {claims}");
    // A value that is passed over may be more than this library takes: an exponent, many levels.
    if let Ok(header) = serde_json::from_str::<Value>(header) {
        assert_eq!(header["alg"], "EdDSA");
        // Null asks for nothing.
        assert!(header["crit"].is_null(), "{header}");
    }
    if let Ok(claims) = serde_json::from_str::<Value>(claims) {
        assert_eq!(claims["sub"], user.to_string());
        assert_eq!(claims["iss"], "roadstead");
        let audience = &claims["aud"];
        let many = audience.as_array().map_or(&[][..], |many| many);
        assert!(audience == "roadstead" || many.contains(&"roadstead".into()));
        is_in_time(&claims);
    }
}

fn is_in_time(claims: &Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    let expires = claims["exp"].as_f64().expect("a number");
    assert!(expires + LEEWAY_S > now, "{claims}");
    let begins = claims.get("nbf").map(|begins| begins.as_f64());
    let begun = begins.is_none_or(|begins| begins.is_some_and(|at| at < now + LEEWAY_S));
    assert!(begun, "{claims}");
}

/// A resume token is its own only spelling; one of the first version, which nobody issues any more, names its user and
/// device first.
fn resumed(token: &[u8], unix_s: u64) {
    let device = DeviceId::new(9).expect("not 0");
    if let Ok(user) = keys().credentials.resume(token, device, unix_s) {
        if token.len() == LEN_OF_VERSION_1 {
            let named = [&user.get().to_be_bytes()[..], &device.get().to_be_bytes()].concat();
            return assert_eq!(token[..12], named[..]);
        }
        let issued = (0..256).map(|at| keys().credentials.issue(user, device, at));
        assert!(issued.into_iter().any(|issued| issued == token));
    }
}

fn sign(header: &str, claims: &str) -> String {
    let body = format!("{}.{}", base64url(header), base64url(claims));
    let signature = keys().pair.sign(body.as_bytes());
    format!("{body}.{}", base64url(signature.as_ref()))
}

/// RFC 4648 5, without padding.
fn base64url(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for digit in 0..=chunk.len() {
            let at = word >> (18 - 6 * digit) & 63;
            out.push(char::from(DIGITS[at as usize]));
        }
    }
    out
}

/// Good ones of both kinds, claims of each shape, an expired one.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let user = UserId::new(7).expect("not 0");
    let device = DeviceId::new(9).expect("not 0");
    let resume = keys().credentials.issue(user, device, 50);
    let expired = CLAIMS.replace("4000000000", "2");
    let many = CLAIMS.replace("\"roadstead\",\"iat\"", "[\"x\",\"roadstead\"],\"iat\"");
    let early = CLAIMS.replace("\"iat\":1", "\"iat\":1,\"nbf\":3999999999.5");
    let begun = CLAIMS.replace("\"iat\":1", "\"nbf\":1.5,\"iat\":1.5");
    let padded = CLAIMS.replace("\"7\"", "\"007\"");
    let critical = r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#;
    let named = r#"{"alg":"EdDSA","kid":"x"}"#;
    vec![
        [&[0][..], sign(HEADER, CLAIMS).as_bytes()].concat(),
        [&[0][..], sign(HEADER, &expired).as_bytes()].concat(),
        [&[1][..], CLAIMS.as_bytes()].concat(),
        [&[1][..], expired.as_bytes()].concat(),
        [&[1][..], many.as_bytes()].concat(),
        [&[2][..], HEADER.as_bytes(), b"\n", CLAIMS.as_bytes()].concat(),
        [&[2][..], br#"{"alg":"none"}"#, b"\n", CLAIMS.as_bytes()].concat(),
        [&[60][..], &resume].concat(),
        [&[200][..], &resume].concat(),
        [&[1][..], early.as_bytes()].concat(),
        [&[1][..], begun.as_bytes()].concat(),
        [&[1][..], padded.as_bytes()].concat(),
        [&[2][..], critical.as_bytes(), b"\n", CLAIMS.as_bytes()].concat(),
        [&[2][..], named.as_bytes(), b"\n", CLAIMS.as_bytes()].concat(),
    ]
}
