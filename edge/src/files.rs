//! Certificate and keys of the data directory, made on the first start.
//!
//! Secrets are files, so that they outlive the process: a restarted server answers old packets with
//! resets that clients believe (T1), resumes their TLS sessions and their logins (T14).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey};
use roadstead_net::tls::TicketKeys;

use crate::config::Config;
use crate::resume::ResumeKeys;
use crate::{clock, development, private};

/// What the server reads at start, and where it found it.
pub(crate) struct Files {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) jwks: JwkSet,
    pub(crate) tickets: TicketKeys,
    pub(crate) reset: [u8; 32],
    pub(crate) retry: [u8; 32],
    /// How often a server started with this data directory: connection ids never recur (T2).
    pub(crate) epoch: u16,
    pub(crate) resume: ResumeKeys,
    /// Name and path of each, for the operator.
    pub(crate) paths: Vec<(&'static str, PathBuf)>,
}

/// Makes what is missing and reads everything.
pub(crate) fn load(config: &Config) -> anyhow::Result<Files> {
    let data = &config.data;
    let made = private::make_folder(data);
    made.with_context(|| format!("data directory {}", data.display()))?;
    private::secure(data);
    let (certificate, key) = certificate_paths(config)?;
    let jwks = jwks_path(config)?;
    let (tickets, resume) = (tickets_path(config), resume_path(config));
    ensure(&tickets, || Ok(TicketKeys::random().to_bytes()))?;
    ensure(&resume, random_key)?;
    Ok(Files {
        jwks: read_jwks(&jwks)?,
        tickets: ticket_keys(config)?,
        reset: secret(&data.join("reset.key"))?,
        retry: secret(&data.join("retry.key"))?,
        epoch: next_epoch(&data.join("epoch"))?,
        resume: resume_keys(config)?,
        certificate: read(&certificate)?,
        key: read_secret(&key)?,
        paths: vec![
            ("certificate", certificate),
            ("certificate key", key),
            ("token signing key (development)", token_key(data)),
            ("token verification keys", jwks),
            ("reset key", data.join("reset.key")),
            ("retry key", data.join("retry.key")),
            ("resume keys", resume),
            ("ticket keys", tickets),
        ],
    })
}

/// Certificate chain and key, PEM.
pub(crate) fn certificate(config: &Config) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let (certificate, key) = certificate_paths(config)?;
    Ok((read(&certificate)?, read_secret(&key)?))
}

/// The keys that seal and open TLS tickets (T14).
pub(crate) fn ticket_keys(config: &Config) -> anyhow::Result<TicketKeys> {
    let path = tickets_path(config);
    TicketKeys::from_bytes(&read_secret(&path)?).with_context(|| damaged(&path))
}

/// How long ago they were written. A file from the future is new.
pub(crate) fn age_of_ticket_keys(config: &Config) -> Duration {
    let written = fs::metadata(tickets_path(config)).and_then(|file| file.modified());
    let age = written.ok().and_then(|at| at.elapsed().ok());
    age.unwrap_or_default()
}

/// Puts a new key before those of the file, and returns them all.
pub(crate) fn rotate_ticket_keys(config: &Config) -> anyhow::Result<TicketKeys> {
    let rotated = ticket_keys(config)?.rotated();
    write_secret(&tickets_path(config), &rotated.to_bytes())?;
    Ok(rotated)
}

/// Public keys that may sign tokens.
pub(crate) fn token_keys(config: &Config) -> anyhow::Result<JwkSet> {
    read_jwks(&jwks_path(config)?)
}

/// The keys of resume tokens (T14).
pub(crate) fn resume_keys(config: &Config) -> anyhow::Result<ResumeKeys> {
    let path = resume_path(config);
    ResumeKeys::from_bytes(&read_secret(&path)?).with_context(|| damaged(&path))
}

fn tickets_path(config: &Config) -> PathBuf {
    config.data.join("tickets.key")
}

fn resume_path(config: &Config) -> PathBuf {
    config.data.join("resume.key")
}

fn read_jwks(path: &Path) -> anyhow::Result<JwkSet> {
    serde_json::from_slice(&read(path)?).with_context(|| format!("{} is no JWKS", path.display()))
}

/// The key that signs development tokens.
pub(crate) fn token_key(data: &Path) -> PathBuf {
    data.join("token-key.pem")
}

/// Where the certificate is that a server shows.
pub(crate) fn certificate_path(config: &Config) -> PathBuf {
    match config.tls.certificate.as_os_str().is_empty() {
        true => config.data.join("cert.pem"),
        false => config.tls.certificate.clone(),
    }
}

/// Where the key of that certificate is.
pub(crate) fn certificate_key_path(config: &Config) -> PathBuf {
    match config.tls.certificate.as_os_str().is_empty() {
        true => config.data.join("cert-key.pem"),
        false => config.tls.key.clone(),
    }
}

fn certificate_paths(config: &Config) -> anyhow::Result<(PathBuf, PathBuf)> {
    let certificate = certificate_path(config);
    let key = certificate_key_path(config);
    if !config.tls.certificate.as_os_str().is_empty() {
        return Ok((certificate, key));
    }
    if !certificate.exists() || !key.exists() {
        let now_s = clock::unix_ms() / 1_000;
        let made = development::certificate(&config.tls.names, now_s);
        let (chain, private) = made.context("a self-signed certificate")?;
        write_secret(&key, private.as_bytes())?;
        write_secret(&certificate, chain.as_bytes())?;
    }
    Ok((certificate, key))
}

fn jwks_path(config: &Config) -> anyhow::Result<PathBuf> {
    let private = token_key(&config.data);
    ensure(&private, || Ok(development::token_key()?.into_bytes()))?;
    if !config.tokens.jwks.as_os_str().is_empty() {
        return Ok(config.tokens.jwks.clone());
    }
    let public = config.data.join("jwks.json");
    if !public.exists() {
        let pem = String::from_utf8(read(&private)?).context("token-key.pem is no PEM")?;
        let pair = rcgen::KeyPair::from_pem(&pem).context("token-key.pem")?;
        let key = DecodingKey::from_ed_der(pair.public_key_raw());
        let mut jwk = Jwk::from_decoding_key(&key, Some(Algorithm::EdDSA))?;
        jwk.common.key_id = Some("development".into());
        write_secret(
            &public,
            &serde_json::to_vec_pretty(&JwkSet { keys: vec![jwk] })?,
        )?;
    }
    Ok(public)
}

fn secret(path: &Path) -> anyhow::Result<[u8; 32]> {
    ensure(path, random_key)?;
    let bytes = read(path)?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| {
        anyhow::anyhow!(
            "{} holds {length} bytes, not 32: it is damaged",
            path.display()
        )
    })
}

fn random_key() -> anyhow::Result<Vec<u8>> {
    let mut key = vec![0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(key)
}

fn damaged(path: &Path) -> String {
    format!("{} is damaged", path.display())
}

/// Counts the file up before the number is used, so that a crash skips numbers and repeats none. After
/// 65,536 starts they begin again: the ids of then are long forgotten.
fn next_epoch(path: &Path) -> anyhow::Result<u16> {
    ensure(path, || Ok(b"0\n".to_vec()))?;
    let text = String::from_utf8(read(path)?).unwrap_or_default();
    let last: u16 = text
        .trim()
        .parse()
        .with_context(|| format!("{} holds no number: it is damaged", path.display()))?;
    let next = last.wrapping_add(1);
    write_secret(path, format!("{next}\n").as_bytes())?;
    Ok(next)
}

fn ensure(path: &Path, make: impl FnOnce() -> anyhow::Result<Vec<u8>>) -> anyhow::Result<()> {
    if path.exists() {
        Ok(())
    } else {
        write_secret(path, &make()?)
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_secret(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let write = || -> std::io::Result<()> {
        let mut file = private::make_file(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Reads a key, which nobody else should.
fn read_secret(path: &Path) -> anyhow::Result<Vec<u8>> {
    private::warn_if_others_read(path);
    read(path)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(data: &Path) -> Config {
        Config {
            data: data.into(),
            ..Config::default()
        }
    }

    #[test]
    fn t1_keys_outlive_the_process_and_only_the_owner_reads_them() {
        let data = tempfile::tempdir().expect("a directory");
        let first = load(&config(data.path())).expect("made");
        let second = load(&config(data.path())).expect("read");
        assert_eq!(first.reset, second.reset);
        assert_eq!((first.epoch, second.epoch), (1, 2), "T2");
        assert_eq!(first.certificate, second.certificate);
        assert_ne!(first.reset, first.retry);
        for (name, path) in first.paths {
            let mode = fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_key_is_named() {
        let data = tempfile::tempdir().expect("a directory");
        load(&config(data.path())).expect("made");
        fs::write(data.path().join("reset.key"), b"short").expect("written");
        let error = load(&config(data.path()))
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains("reset.key") && error.contains("5 bytes"),
            "{error}"
        );
    }

    /// The DER of a PEM file.
    fn der(path: &Path) -> Vec<u8> {
        let pem = fs::read_to_string(path).expect("it is there");
        let key = rcgen::KeyPair::from_pem(&pem).expect("a key");
        key.serialize_der()
    }

    /// RFC 5208: version 0, an algorithm, the key in an octet string, and no public key behind it (RFC 5958 adds
    /// that, as version 1).
    #[test]
    fn fc9_private_keys_are_pkcs8_as_everything_reads_it() {
        let data = tempfile::tempdir().expect("a directory");
        load(&config(data.path())).expect("made");
        let token = der(&token_key(data.path()));
        let head = [
            0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32,
        ];
        assert_eq!(token[..head.len()], head);
        assert_eq!(token.len(), head.len() + 32);
        let certificate = der(&data.path().join("cert-key.pem"));
        assert_eq!(certificate[..2], [0x30, 0x81], "a length of one byte");
        assert_eq!(certificate[3..6], [2, 1, 0], "version 0");

        for (command, file) in [
            ("pkey", "token-key.pem"),
            ("pkey", "cert-key.pem"),
            ("x509", "cert.pem"),
        ] {
            let mut openssl = std::process::Command::new("openssl");
            openssl.args([command, "-noout", "-in"]);
            // Not everywhere.
            if let Ok(output) = openssl.arg(data.path().join(file)).output() {
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{file}: {error}");
            }
        }
    }

    #[test]
    fn fc9_the_certificate_that_is_made_has_dates_that_every_parser_holds() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let data = tempfile::tempdir().expect("a directory");
        let files = load(&config(data.path())).expect("made");
        let der = CertificateDer::from_pem_slice(&files.certificate).expect("a certificate");
        for date in [&b"750101000000Z"[..], b"40960101000000Z"] {
            assert!(!der.windows(date.len()).any(|part| part == date));
        }
    }

    #[test]
    fn fc9_a_key_of_the_older_form_still_signs() {
        let data = tempfile::tempdir().expect("a directory");
        let old = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        assert_eq!(old.serialized_der()[4], 1, "version 2 of PKCS #8");
        fs::write(token_key(data.path()), old.serialize_pem()).expect("written");
        let files = load(&config(data.path())).expect("read");
        let public = DecodingKey::from_ed_der(old.public_key_raw());
        let known = DecodingKey::from_jwk(&files.jwks.keys[0]).expect("a key");
        let (public, known) = (public.try_get_as_bytes(), known.try_get_as_bytes());
        assert_eq!(public.expect("raw"), known.expect("raw"));
        assert_eq!(
            fs::read_to_string(token_key(data.path())).expect("there"),
            old.serialize_pem()
        );
        let pem = old.serialize_pem();
        let key = jsonwebtoken::EncodingKey::from_ed_pem(pem.as_bytes()).expect("a key");
        let header = jsonwebtoken::Header::new(Algorithm::EdDSA);
        jsonwebtoken::encode(&header, &serde_json::json!({}), &key).expect("signed");
    }
}
