//! What the bare cryptographic operations of a handshake cost: the floor below which no engine gets.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use aws_lc_rs::{aead, agreement, digest, hkdf, hmac, rand};

/// Each operation is repeated this often.
const ROUNDS: u32 = 2_000;

/// HKDF-Expand-Label on a server: eleven of the TLS 1.3 key schedule (RFC 8446 7.1: derived twice, four
/// traffic secrets, exporter, resumption and its ticket, two finished keys) and 23 of QUIC (RFC 9001
/// 5.1, 5.2, 6.1: two initial secrets, three keys for each direction and level, one next generation).
const EXPANDS: u32 = 34;

/// HKDF-Extract: three of TLS, one of QUIC. Finished: one made, one checked.
const HMACS: u32 = 6;

/// A ticket that is accepted adds a binder: its key, its finished key and its HMAC.
const BINDER_EXPANDS: u32 = 2;

/// Packets of a handshake on a server, opened and sealed, about 600 bytes each.
const PACKETS: u32 = 8;

/// The parts, each once.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    pub keygen: Duration,
    pub agree: Duration,
    pub sign: Duration,
    pub verify: Duration,
    pub expand: Duration,
    pub hmac: Duration,
    pub seal: Duration,
    pub hash: Duration,
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn each<R>(mut f: impl FnMut() -> R) -> Duration {
    (0..ROUNDS / 10).for_each(|_| drop(black_box(f())));
    let begin = Instant::now();
    (0..ROUNDS).for_each(|_| drop(black_box(f())));
    begin.elapsed() / ROUNDS
}

impl Floor {
    pub fn measure() -> Self {
        let random = rand::SystemRandom::new();
        let private = || agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random);
        let keygen = each(|| private().and_then(|key| key.compute_public_key()));
        let theirs = private().and_then(|key| key.compute_public_key());
        let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, theirs.expect("a key"));
        let both = each(|| {
            let key = private().expect("a key");
            let public = key.compute_public_key();
            let shared = agreement::agree_ephemeral(key, &theirs, (), |secret| {
                black_box(secret);
                Ok(())
            });
            (public, shared)
        });
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            pkcs8.expect("a key").as_ref(),
        )
        .expect("a key");
        let message = [7; 130];
        let sign = each(|| pair.sign(&random, &message));
        let signature = pair.sign(&random, &message).expect("a signature");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key());
        let verify = each(|| public.verify(&message, signature.as_ref()));
        let info: [&[u8]; 2] = [&[0, 32, 15], b"tls13 quic key\0"];
        let expand = each(|| {
            let mut out = [0; 32];
            hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &[5; 32])
                .expand(&info, Length(32))
                .and_then(|okm| okm.fill(&mut out))
                .map(|()| out)
        });
        let hmac = each(|| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[3; 32]), &[4; 32]));
        let mut packet = [9; 600];
        let seal = each(|| {
            let key = aead::UnboundKey::new(&aead::AES_128_GCM, &[1; 16]).expect("a key");
            let header = aead::quic::HeaderProtectionKey::new(&aead::quic::AES_128, &[2; 16]);
            let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
            let aad = aead::Aad::from([0; 20]);
            let tag = aead::LessSafeKey::new(key)
                .seal_in_place_separate_tag(nonce, aad, &mut packet)
                .expect("sealed");
            (header.map(|key| key.new_mask(&[1; 16])), tag)
        });
        Self {
            keygen,
            agree: both.saturating_sub(keygen),
            sign,
            verify,
            expand,
            hmac,
            seal,
            hash: each(|| digest::digest(&digest::SHA256, &packet)),
        }
    }

    fn common(&self) -> Duration {
        self.keygen
            + self.agree
            + self.expand * EXPANDS
            + self.hmac * HMACS
            + self.seal * PACKETS
            + self.hash * 2
    }

    /// A server's full handshake.
    pub fn server_full(&self) -> Duration {
        self.common() + self.sign
    }

    /// A client's: the certificate's signature and that of the handshake.
    pub fn client_full(&self) -> Duration {
        self.common() + self.verify * 2
    }

    /// A server's resumed handshake, with a fresh key exchange; the ticket is opened, and one sealed.
    pub fn server_resumed(&self) -> Duration {
        self.common() + self.expand * BINDER_EXPANDS + self.hmac + self.seal * 2
    }
}
