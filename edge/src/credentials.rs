//! What a worker checks credentials with. Replaced as a whole when keys are read again.

use std::sync::Arc;

use crate::config::Config;
use crate::files::{self, Files};
use crate::resume::ResumeTokens;
use crate::token::Verifier;

/// The keys of signed tokens and of resume tokens.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) resume: Arc<ResumeTokens>,
}

impl Credentials {
    /// With the keys that were read at start.
    pub(crate) fn new(config: &Config, files: &Files) -> anyhow::Result<Self> {
        let resume = ResumeTokens::new(&files.resume, config.tokens.resume_valid_for_s);
        Ok(Self {
            verifier: Arc::new(Verifier::new(&files.jwks, &config.tokens)?),
            resume: Arc::new(resume),
        })
    }

    /// Reads the public keys that may sign tokens. After an error they are those of before.
    pub(crate) fn read_token_keys(&mut self, config: &Config) -> anyhow::Result<()> {
        let jwks = files::token_keys(config)?;
        self.verifier = Arc::new(Verifier::new(&jwks, &config.tokens)?);
        Ok(())
    }

    /// Reads the keys of resume tokens. After an error they are those of before.
    pub(crate) fn read_resume_keys(&mut self, config: &Config) -> anyhow::Result<()> {
        let keys = files::resume_keys(config)?;
        let valid_for_s = config.tokens.resume_valid_for_s;
        self.resume = Arc::new(ResumeTokens::new(&keys, valid_for_s));
        Ok(())
    }
}
