//! A network namespace of its own, with packet loss by nftables.
//!
//! A scenario that needs one runs this program again inside: server, load generator and scenario all live
//! in the namespace, and nothing outside of it is touched.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::report::End;
use crate::scenario::Bench;

/// Set inside: the scenario is to run here.
const INSIDE: &str = "ROADSTEAD_FAULTS_INSIDE";

/// Whether this process is in a namespace made for it.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a scenario again in a namespace of its own.
pub(crate) fn run_inside(bench: &Bench, name: &str) -> Result<End> {
    let may = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && nft list ruleset"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return Ok(End::Skip("no network namespaces, ip or nft here".into()));
    }
    let json = tempfile::NamedTempFile::new()?;
    let this = std::env::current_exe()?;
    let output = Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && exec \"$0\" \"$@\"",
        ])
        .arg(this)
        .args(["--only", name, "--seconds", &bench.seconds.to_string()])
        .args(["--quic-engine", &bench.quic_engine, "--binaries"])
        .arg(&bench.binaries)
        .arg("--json")
        .arg(json.path())
        .env(INSIDE, "1")
        .output()?;
    let text = std::fs::read_to_string(json.path())?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_str(&text).with_context(said)?;
    let seen = report["scenarios"][0]["seen"].as_str().unwrap_or_default();
    ensure!(output.status.success(), "{seen}");
    Ok(End::Pass(seen.to_owned()))
}

/// Drops this share of the packets that arrive over UDP, in hundredths; 0 ends it.
pub(crate) fn lose(percent: u32) -> Result<()> {
    ensure!(
        is_inside(),
        "packets are lost in namespaces of our own only"
    );
    let _ = nft("delete table inet faults");
    if percent > 0 {
        nft("add table inet faults")?;
        nft("add chain inet faults input { type filter hook input priority 0; }")?;
        let those = match percent {
            100.. => String::new(),
            _ => format!("numgen random mod 100 < {percent} "),
        };
        nft(&format!(
            "add rule inet faults input meta l4proto udp {those}counter drop"
        ))?;
    }
    Ok(())
}

/// Packets that were lost so far under the present rule.
pub(crate) fn lost() -> Result<u64> {
    let output = Command::new("nft")
        .args(["list", "table", "inet", "faults"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let after = text.split("counter packets ").nth(1).unwrap_or_default();
    let number = after.split_whitespace().next().unwrap_or("0");
    Ok(number.parse()?)
}

fn nft(rule: &str) -> Result<()> {
    let output = Command::new("nft").arg(rule).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft {rule}: {said}");
    Ok(())
}
