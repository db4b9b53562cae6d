//! The servers' certificate, made anew for each run.

use std::path::PathBuf;

use anyhow::Result;

use crate::script::SERVER_NAME;

/// A self-signed certificate, as text and as files: quiche and aioquic read files.
#[derive(Debug)]
pub struct Identity {
    /// The certificate as PEM.
    pub chain: String,
    /// Its key as PEM.
    pub key: String,
    dir: tempfile::TempDir,
}

impl Identity {
    /// A new one.
    pub fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
        Self::of(made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// This one.
    pub fn of(chain: String, key: String) -> Result<Self> {
        let identity = Self {
            chain,
            key,
            dir: tempfile::tempdir()?,
        };
        std::fs::write(identity.chain_path(), &identity.chain)?;
        std::fs::write(identity.key_path(), &identity.key)?;
        Ok(identity)
    }

    /// The certificate's file.
    pub fn chain_path(&self) -> PathBuf {
        self.dir.path().join("chain.pem")
    }

    /// The key's file.
    pub fn key_path(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }
}
