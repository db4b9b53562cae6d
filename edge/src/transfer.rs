//! `roadstead store export | import`: a store moves from one engine to another (R3).

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::Context;
use roadstead_store::embedded::SerialEngine;
use roadstead_store::transfer::{self, Summary};
use roadstead_store::txn::{Engine, ready};

use crate::config::Config;
use crate::descriptors::{self, Takers};
use crate::store::{embedded_config, new_placement_key};
use crate::{cli, private};

pub(crate) fn run(command: &cli::Store) -> anyhow::Result<()> {
    let (cli::Store::Export(arguments) | cli::Store::Import(arguments)) = command;
    let config = Config::load(&arguments.as_serve())?;
    private::keep_from_others();
    #[cfg(feature = "foundationdb")]
    if config.store.engine == crate::config::Engine::Foundationdb {
        return foundation::run(command, arguments.replace, &config);
    }
    #[cfg(feature = "foundationdb")]
    anyhow::ensure!(
        !arguments.replace,
        "--replace is for a cluster; of a data directory, remove `store`"
    );
    let path = config.data.join("store");
    if matches!(command, cli::Store::Export(_)) {
        anyhow::ensure!(path.is_dir(), "{} holds no store", config.data.display());
    } else {
        let made = private::make_folder(&config.data);
        made.with_context(|| config.data.display().to_string())?;
    }
    let open_files = Takers::embedded(0, 0).share_out(descriptors::raise_limit())?;
    let embedded = embedded_config(&config, open_files, new_placement_key()?);
    let engine = SerialEngine::open(&embedded);
    ready(transfer(&engine.context("the store")?, command))
}

async fn transfer(engine: &impl Engine, command: &cli::Store) -> anyhow::Result<()> {
    match command {
        cli::Store::Export(arguments) => {
            let summary = export(engine, &arguments.file).await;
            if summary.is_err() {
                // Nobody reads a file without its end, and nobody needs it.
                let _ = fs::remove_file(partial(&arguments.file));
            }
            tell("exported", summary?)?;
        }
        cli::Store::Import(arguments) => {
            let file = File::open(&arguments.file);
            let file = file.with_context(|| arguments.file.display().to_string())?;
            let mut input = BufReader::with_capacity(1 << 20, file);
            let summary = transfer::import(engine, &mut input).await?;
            tell("imported", summary)?;
        }
    }
    Ok(())
}

/// The file has its name once it is complete and on disk. It holds messages in clear.
async fn export(engine: &impl Engine, path: &Path) -> anyhow::Result<Summary> {
    anyhow::ensure!(!path.exists(), "{} exists already", path.display());
    let partial = partial(path);
    let file = private::make_file(&partial).with_context(|| partial.display().to_string())?;
    let mut output = BufWriter::with_capacity(1 << 20, file);
    let summary = transfer::export(engine, &mut output).await?;
    output.into_inner()?.sync_all()?;
    fs::rename(&partial, path)?;
    Ok(summary)
}

fn partial(path: &Path) -> std::path::PathBuf {
    path.with_added_extension("partial")
}

fn tell(what: &str, summary: Summary) -> anyhow::Result<()> {
    cli::line(&format!(
        "{what} {} keys, {} bytes, checksum {:016x}",
        summary.keys, summary.bytes, summary.checksum
    ))
}

#[cfg(feature = "foundationdb")]
mod foundation {
    use std::time::Duration;

    use roadstead_store::foundationdb::{Network, Raw};
    use roadstead_store::transfer::{TransferError, remove};

    use crate::cli;
    use crate::config::Config;

    /// How long one transaction may take.
    const PATIENCE: Duration = Duration::from_secs(5);

    pub(super) fn run(command: &cli::Store, replace: bool, config: &Config) -> anyhow::Result<()> {
        let network = Network::start()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let result = runtime.block_on(async {
            let (file, deployment) = (&config.store.cluster_file, &config.store.deployment);
            let raw = Raw::open(&network, file.as_deref(), deployment, PATIENCE).await?;
            if raw.is_served().await? {
                return Err(TransferError::AtWork.into());
            }
            if replace && matches!(command, cli::Store::Import(_)) {
                remove(&raw).await?;
            }
            super::transfer(&raw, command).await
        });
        network.stop();
        result
    }
}
