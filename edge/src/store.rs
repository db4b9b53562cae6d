//! The store behind the server: an engine that is chosen when the server starts.

use std::sync::Arc;

use anyhow::Context;
use roadstead::ShardId;
use roadstead::store::{Completion, Request, StoreError};
use roadstead_store::embedded::QueueDepths;
#[cfg(feature = "foundationdb")]
use roadstead_store::foundationdb::{FoundationConfig, FoundationStore, Network};
use roadstead_store::records::expiry::Expired;
use roadstead_store::{EmbeddedConfig, EmbeddedLimits, EmbeddedStore, Ends, Health, Sink};

use crate::clock;
use crate::config::Config;

/// An open store.
pub(crate) enum Store {
    Embedded(EmbeddedStore),
    /// The store is stopped before the client's network, which can not be started again.
    #[cfg(feature = "foundationdb")]
    Foundation(FoundationStore, Network),
}

/// Asks a store; cheap to clone, for any thread.
#[derive(Clone)]
pub(crate) enum Handle {
    Embedded(roadstead_store::Handle),
    #[cfg(feature = "foundationdb")]
    Foundation(roadstead_store::foundationdb::Handle),
}

/// Does the same with the handle of any engine.
macro_rules! on {
    ($self:expr, $handle:ident => $body:expr) => {
        match $self {
            Handle::Embedded($handle) => $body,
            #[cfg(feature = "foundationdb")]
            Handle::Foundation($handle) => $body,
        }
    };
}

impl Store {
    pub(crate) fn open(config: &Config, open_files: u64, sink: Sink) -> anyhow::Result<Self> {
        let placement_key = new_placement_key()?;
        #[cfg(feature = "foundationdb")]
        if config.store.engine == crate::config::Engine::Foundationdb {
            return open_foundation(config, placement_key, sink).context("the store");
        }
        let embedded = embedded_config(config, open_files, placement_key);
        let store = EmbeddedStore::open(embedded, sink);
        let store = store.context("the store")?;
        Ok(Self::Embedded(store))
    }

    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Embedded(store) => Handle::Embedded(store.handle()),
            #[cfg(feature = "foundationdb")]
            Self::Foundation(store, _) => Handle::Foundation(store.handle()),
        }
    }

    pub(crate) fn placement_key(&self) -> [u8; 16] {
        match self {
            Self::Embedded(store) => store.placement_key(),
            #[cfg(feature = "foundationdb")]
            Self::Foundation(store, _) => store.placement_key(),
        }
    }

    pub(crate) fn stop(self) {
        match self {
            Self::Embedded(store) => store.stop(),
            #[cfg(feature = "foundationdb")]
            Self::Foundation(store, network) => {
                store.stop();
                network.stop();
            }
        }
    }
}

/// For a store that is new.
pub(crate) fn new_placement_key() -> anyhow::Result<[u8; 16]> {
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(key)
}

/// The store of the data directory, which may keep so many files open.
pub(crate) fn embedded_config(
    config: &Config,
    open_files: u64,
    placement_key: [u8; 16],
) -> EmbeddedConfig {
    EmbeddedConfig {
        path: config.data.join("store"),
        node: config.node,
        placement_key,
        clock: Arc::new(clock::time),
        limits: EmbeddedLimits {
            cached_keys_max: config.store.cached_keys as usize,
            known_devices_max: config.store.cached_keys as usize,
            block_cache_bytes: u64::from(config.store.block_cache_mib) << 20,
            reserve_bytes_max: u64::from(config.store.reserve_mib) << 20,
            open_files_max: usize::try_from(open_files).unwrap_or(usize::MAX),
            ..EmbeddedLimits::default()
        },
    }
}

#[cfg(feature = "foundationdb")]
fn open_foundation(
    config: &Config,
    placement_key: [u8; 16],
    sink: Sink,
) -> Result<Store, roadstead_store::foundationdb::FoundationError> {
    let network = Network::start()?;
    let foundation = FoundationConfig {
        cluster_file: config.store.cluster_file.clone(),
        deployment: config.store.deployment.clone(),
        node: config.node,
        placement_key,
        clock: Arc::new(clock::time),
        limits: roadstead_store::foundationdb::FoundationLimits::default(),
    };
    let store = FoundationStore::open(&network, foundation, sink)?;
    Ok(Store::Foundation(store, network))
}

impl Handle {
    pub(crate) fn submit(&self, shard: ShardId, requests: Vec<Request>) -> Vec<Completion> {
        on!(self, handle => handle.submit(shard, requests))
    }

    pub(crate) fn health(&self) -> Health {
        on!(self, handle => handle.health())
    }

    /// How often sessions had to read again, because what they were not told of may be committed (R15): the
    /// embedded engine failed and was reopened, or FoundationDB did not answer in time.
    pub(crate) fn failures(&self) -> u64 {
        match self {
            Self::Embedded(handle) => handle.counters().commit.failures.get(),
            #[cfg(feature = "foundationdb")]
            Self::Foundation(handle) => handle.counters().unsettled.get(),
        }
    }

    /// What the embedded engine has in memory and not yet in its tables.
    pub(crate) fn young_bytes(&self) -> u64 {
        match self {
            Self::Embedded(handle) => handle.counters().commit.young_bytes.get(),
            #[cfg(feature = "foundationdb")]
            Self::Foundation(_) => 0,
        }
    }

    pub(crate) fn queue_depths(&self) -> QueueDepths {
        on!(self, handle => handle.queue_depths())
    }

    pub(crate) fn reserve_message_ids(&self, until_unix_ms: u64) -> Result<(u64, u64), StoreError> {
        on!(self, handle => handle.reserve_message_ids(until_unix_ms))
    }

    pub(crate) fn stamp_minute(&self, unix_ms: u64) -> Result<bool, StoreError> {
        on!(self, handle => handle.stamp_minute(unix_ms))
    }

    /// Tells from now on what ends, so that its sessions end too.
    pub(crate) fn tell_ends_to(&self, ends: Ends) {
        on!(self, handle => handle.tell_ends_to(ends));
    }

    pub(crate) fn expire(&self, day_done: Option<u32>) -> Result<Expired, StoreError> {
        on!(self, handle => handle.expire(day_done))
    }
}
