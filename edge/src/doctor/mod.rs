//! `roadstead doctor`: what stands between this host and that many sessions, and the command for each fix.
//!
//! Exit code 0: nothing does. 1: it works, and costs speed, memory or messages under load. 2: it will not
//! work. (A wrong command line is 2 as well: no answer is no pass.)

mod checks;
mod finding;
mod host;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use roadstead_net::tls::chain_bytes;
use serde_json::json;

use crate::config::Config;
pub(crate) use crate::numbers::grouped;
use crate::validity::Validity;
use crate::{cli, files};
use checks::Need;
use finding::{Finding, Severity};
use host::Host;

/// Reads the host, prints what was found, and says how bad it is.
pub(crate) fn run(arguments: &cli::Doctor) -> anyhow::Result<ExitCode> {
    let mut host = Host::read();
    host.chain = arguments.config.as_deref().map(chain);
    host.validity = arguments.config.as_deref().map(validity);
    let need = Need {
        sessions: arguments.sessions,
        shards: arguments.shards.map_or(host.cores, u64::from),
        engine: arguments.quic_engine.unwrap_or_default(),
    };
    let findings = checks::all(&host, &need);
    let text = if arguments.json {
        serde_json::to_string_pretty(&report(&need, &findings))?
    } else {
        text(&need, &findings)
    };
    cli::line(&text)?;
    Ok(ExitCode::from(exit_code(&findings)))
}

/// Bytes of the certificate chain that a configuration names, or why they are not known.
fn chain(config: &Path) -> Result<u64, String> {
    let bytes = || {
        let path = files::certificate_path(&Config::read(config)?);
        let pem = std::fs::read(&path).with_context(|| path.display().to_string())?;
        anyhow::Ok(chain_bytes(&pem)?)
    };
    let bytes = bytes().map_err(|error| format!("{error:#}"))?;
    Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// When that chain is good, or why it is not known.
fn validity(config: &Path) -> Result<Validity, String> {
    let read = Config::read(config)
        .and_then(|config| Validity::of_file(&files::certificate_path(&config)));
    read.map_err(|error| format!("{error:#}"))
}

fn exit_code(findings: &[Finding]) -> u8 {
    match worst(findings) {
        Severity::Ok | Severity::Note => 0,
        Severity::Warning => 1,
        Severity::Failure => 2,
    }
}

fn worst(findings: &[Finding]) -> Severity {
    let severities = findings.iter().map(|finding| finding.severity);
    severities.max().unwrap_or(Severity::Ok)
}

fn report(need: &Need, findings: &[Finding]) -> serde_json::Value {
    json!({
        "sessions": need.sessions,
        "shards": need.shards,
        "quic_engine": format!("{:?}", need.engine).to_lowercase(),
        "verdict": worst(findings),
        "exit_code": exit_code(findings),
        "findings": findings,
    })
}

/// A line for what is well, a paragraph for what is not.
fn text(need: &Need, findings: &[Finding]) -> String {
    let mut lines = vec![format!(
        "for {} sessions on {} shards\n",
        grouped(need.sessions),
        need.shards
    )];
    for finding in findings {
        let mark = match finding.severity {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "WARNING",
            Severity::Failure => "FAILURE",
        };
        lines.push(format!("{mark:8} {:19} {}", finding.check, finding.found));
        if finding.severity >= Severity::Note {
            lines.push(format!("{:8} wanted: {}", "", finding.wanted));
        }
        if finding.severity >= Severity::Warning {
            lines.push(format!("{:8} why:    {}", "", finding.why));
        }
        if !finding.fix.is_empty() {
            lines.push(format!("{:8} fix:    {}", "", finding.fix));
        }
    }
    let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
    lines.push(format!(
        "\n{} failures, {} warnings, {} notes",
        count(Severity::Failure),
        count(Severity::Warning),
        count(Severity::Note)
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests;
