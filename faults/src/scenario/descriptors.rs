//! No descriptor is left for the store's next file or the admin page's next reader.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Bench, Stage};
use crate::report::End;

/// How long there is none.
const EXHAUSTED: Duration = Duration::from_secs(3);

pub(super) fn run(bench: &Bench) -> Result<End> {
    let stage = Stage::new(bench)?;
    let open = stage.edge.free_descriptor()?;
    let before = stage.edge.limit_descriptors(Some(open))?;
    let refused = stage.edge.get("/healthz").is_err();
    std::thread::sleep(EXHAUSTED);
    stage.edge.limit_descriptors(before)?;
    ensure!(refused, "the admin page answered without a descriptor");
    stage.edge.becomes_ready(200)?;
    let account = stage.verify()?;
    Ok(End::Pass(format!(
        "{open} descriptors and no more; {}",
        account.words()
    )))
}
