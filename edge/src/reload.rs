//! Certificate and keys, read again while the server runs: on SIGHUP, and the ticket keys by the clock.
//!
//! Sessions that are open keep what they have; the next handshake and the next login see what is new. Each
//! file is taken by itself, and one that is missing, damaged or does not fit leaves what was in force there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use roadstead_net::Mailbox;
use roadstead_net::tls::ServerTls;
use tokio::signal::unix::Signal;

use crate::config::Config;
use crate::credentials::Credentials;
use crate::metrics::{Number, Text};
use crate::validity::Validity;
use crate::worker::{self, Message};
use crate::{clock, files, tls_error};

/// How often the age of the ticket keys is looked at, at least: clocks are set and hosts sleep. After a
/// rotation that failed it is the time to the next try.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// How often an operator is told of a certificate that expires.
const REMIND_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What can be read again.
#[derive(Debug, Clone, Copy)]
enum Part {
    Certificate,
    TicketKeys,
    TokenKeys,
    ResumeKeys,
}

impl Part {
    const ALL: [Self; 4] = [
        Self::Certificate,
        Self::TicketKeys,
        Self::TokenKeys,
        Self::ResumeKeys,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::TicketKeys => "ticket_keys",
            Self::TokenKeys => "token_keys",
            Self::ResumeKeys => "resume_keys",
        }
    }
}

/// How often each part was read again, and how often it could not be.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    done: [Number; Part::ALL.len()],
    failed: [Number; Part::ALL.len()],
    rotations: Number,
    /// Seconds since 1970; 0 is not known.
    certificate_expires_s: Number,
}

impl Counts {
    pub(crate) fn write(&self, text: &mut Text) {
        let help = "Certificates and keys read again, by file and result.";
        text.family("roadstead_reloads", "counter", help);
        for (index, part) in Part::ALL.into_iter().enumerate() {
            for (result, counts) in [("ok", &self.done), ("failed", &self.failed)] {
                let labels = [("file", part.name()), ("result", result)];
                text.sample(&labels, counts[index].get());
            }
        }
        let help = "Ticket keys rotated by the clock.";
        text.family("roadstead_ticket_rotations", "counter", help);
        text.sample(&[], self.rotations.get());
        let help = "When the certificate expires, in seconds since 1970; 0 if it does not say so.";
        text.family("roadstead_certificate_expires_seconds", "gauge", help);
        text.sample(&[("use", "clients")], self.certificate_expires_s.get());
    }
}

/// See the [module](self).
pub(crate) struct Reload {
    config: Config,
    tls: Arc<ServerTls>,
    credentials: Credentials,
    mailboxes: Vec<Mailbox<Message>>,
    counts: Arc<Counts>,
    rotation_failed: bool,
    /// Of the certificate in force.
    validity: Option<Validity>,
    reminded: Instant,
}

impl Reload {
    pub(crate) fn new(
        config: Config,
        tls: Arc<ServerTls>,
        credentials: Credentials,
        mailboxes: Vec<Mailbox<Message>>,
    ) -> Self {
        let mut reload = Self {
            config,
            tls,
            credentials,
            mailboxes,
            counts: Arc::default(),
            rotation_failed: false,
            validity: None,
            reminded: Instant::now(),
        };
        let read = Validity::of_file(&files::certificate_path(&reload.config));
        reload.shows(read);
        reload
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Goes on until it is dropped. The files are small and read in place.
    pub(crate) async fn run(mut self, mut asked: Signal) {
        loop {
            tokio::select! {
                _ = asked.recv() => self.read_all(),
                () = tokio::time::sleep(self.next_look()) => {
                    self.rotate_if_due();
                    self.remind_if_due();
                }
            }
        }
    }

    fn read_all(&mut self) {
        for part in Part::ALL {
            let result = self.read(part);
            self.note(part, result);
        }
        self.rotation_failed = false;
    }

    fn read(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Certificate => {
                let (chain, key) = files::certificate(&self.config)?;
                let replaced = self.tls.replace_certificate(&chain, &key);
                replaced.map_err(|error| tls_error::explain(&self.config, &chain, &key, &error))?;
                self.shows(Validity::of_pem(&chain));
            }
            Part::TicketKeys => {
                self.tls.rotate_tickets(&files::ticket_keys(&self.config)?);
            }
            Part::TokenKeys => {
                self.credentials.read_token_keys(&self.config)?;
                self.hand_out();
            }
            Part::ResumeKeys => {
                self.credentials.read_resume_keys(&self.config)?;
                self.hand_out();
            }
        }
        Ok(())
    }

    /// Notes what the certificate in force says of its dates.
    fn shows(&mut self, read: anyhow::Result<Validity>) {
        self.validity = read
            .inspect_err(|error| tracing::warn!("the certificate's dates: {error:#}"))
            .ok();
        let expires_s = self.validity.map_or(0, |validity| validity.until.unix_s());
        let gauge = &self.counts.certificate_expires_s;
        gauge.set(u64::try_from(expires_s).unwrap_or(0));
        self.remind();
    }

    fn remind(&mut self) {
        self.reminded = Instant::now();
        if let Some(validity) = self.validity {
            validity.warn(&files::certificate_path(&self.config), clock::unix_s());
        }
    }

    fn remind_if_due(&mut self) {
        if self.reminded.elapsed() >= REMIND_EVERY {
            self.remind();
        }
    }

    fn note(&self, part: Part, result: anyhow::Result<()>) {
        let file = part.name();
        let counts = match result {
            Ok(()) => {
                tracing::info!(file, "read again and in force");
                &self.counts.done
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(file, error, "not read again: the old one stays in force");
                &self.counts.failed
            }
        };
        counts[part as usize].add(1);
    }

    fn hand_out(&self) {
        for mailbox in &self.mailboxes {
            worker::deliver(mailbox, Message::Credentials(self.credentials.clone()));
        }
    }

    /// When to look at the age of the ticket keys next.
    fn next_look(&self) -> Duration {
        match self.until_rotation() {
            Some(wait) if !self.rotation_failed => wait.min(LOOK_EVERY),
            _ => LOOK_EVERY,
        }
    }

    /// How long the key that seals may go on sealing; `None` for ever.
    fn until_rotation(&self) -> Option<Duration> {
        let every = self.config.tls.tickets_rotate_every()?;
        Some(every.saturating_sub(files::age_of_ticket_keys(&self.config)))
    }

    /// A new key seals from now on, and the old ones open what they have sealed.
    fn rotate_if_due(&mut self) {
        if !self.until_rotation().is_some_and(|wait| wait.is_zero()) {
            return;
        }
        let rotated = files::rotate_ticket_keys(&self.config).context("rotating the ticket keys");
        self.rotation_failed = rotated.is_err();
        let result = rotated.map(|keys| {
            self.tls.rotate_tickets(&keys);
            self.counts.rotations.add(1);
        });
        self.note(Part::TicketKeys, result);
    }
}
