//! Packets that never arrive.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Bench, Stage};
use crate::network;
use crate::report::End;

/// All packets are lost for so long: shorter than the idle timeout.
const CUT: Duration = Duration::from_secs(3);

pub(super) fn run(bench: &Bench) -> Result<End> {
    if !network::is_inside() {
        return network::run_inside(bench, "packet-loss");
    }
    let stage = Stage::new(bench)?;
    let quarter = Duration::from_secs(bench.seconds) / 4;
    let mut lost = Vec::new();
    for (percent, lasts) in [(5, quarter), (20, quarter), (100, CUT)] {
        network::lose(percent)?;
        std::thread::sleep(lasts);
        lost.push(network::lost()?);
    }
    network::lose(0)?;
    ensure!(
        lost.iter().all(|count| *count > 0),
        "no packet was lost: {lost:?}"
    );
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "{lost:?} packets lost; {}",
        account.words()
    )))
}
