//! What a worker checks credentials with. Replaced as a whole when keys are read again.

use std::sync::Arc;

use roadstead::{Credential, Identity, Proof};
use roadstead_proto::{DeviceId, ErrorCode};

use crate::config::{Config, Tokens};
use crate::files::{self, Files};
use crate::resume::{Claims, ResumeKeys, ResumeTokens};
use crate::token::Verifier;

/// The keys of signed tokens and of resume tokens.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    verifier: Arc<Verifier>,
    resume: Arc<ResumeTokens>,
}

impl Credentials {
    /// With the keys that were read at start.
    pub(crate) fn new(config: &Config, files: &Files) -> anyhow::Result<Self> {
        Ok(Self {
            verifier: Arc::new(Verifier::new(&files.jwks, &config.tokens)?),
            resume: resume_tokens(&files.resume, &config.tokens),
        })
    }

    /// Who a credential proves, on this device, which counts this connection so.
    pub(crate) fn check(
        &self,
        credential: &Credential,
        (device, counter): (DeviceId, u64),
        unix_s: u64,
    ) -> Result<Identity, ErrorCode> {
        let (user, issued_s, checked_s, proof) = match credential {
            Credential::Token(token) => {
                let proved = self.verifier.verify(token)?;
                // One from the future is as good as one of now: a later sign-out ends it.
                let issued_s = proved.issued_s.min(unix_s);
                (proved.user, issued_s, unix_s, Proof::Signed)
            }
            Credential::Resume(token) => {
                let shown = self.resume.verify(token, device, unix_s)?;
                let counter = shown.counter;
                let proof = Proof::Resumed { counter };
                (shown.user, shown.checked_s, shown.checked_s, proof)
            }
        };
        let claims = Claims {
            user,
            checked_s,
            counter: Some(counter),
        };
        Ok(Identity {
            user,
            resume_token: self.resume.issue(claims, device, unix_s),
            issued_s,
            proof,
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
        self.resume = resume_tokens(&keys, &config.tokens);
        Ok(())
    }
}

fn resume_tokens(keys: &ResumeKeys, tokens: &Tokens) -> Arc<ResumeTokens> {
    let (valid_for_s, login_valid_for_s) = (tokens.resume_valid_for_s, tokens.login_valid_for_s);
    Arc::new(ResumeTokens::new(keys, valid_for_s, login_valid_for_s))
}
