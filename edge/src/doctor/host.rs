//! A snapshot of everything that the checks look at. Reading it is the only part of the doctor that touches
//! the host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use roadstead_net::host::{self, Limit};

use crate::clock;
use crate::validity::Validity;

/// Files that are read whatever the host looks like, below `/`.
const FILES: [&str; 19] = [
    "proc/sys/kernel/osrelease",
    "proc/self/limits",
    "proc/sys/net/core/rmem_max",
    "proc/sys/net/core/wmem_default",
    "proc/sys/net/core/wmem_max",
    "proc/sys/net/core/netdev_max_backlog",
    "proc/sys/net/core/rps_sock_flow_entries",
    "proc/sys/net/ipv4/udp_mem",
    "proc/sys/net/netfilter/nf_conntrack_max",
    "proc/sys/net/netfilter/nf_conntrack_count",
    "proc/net/softnet_stat",
    "proc/net/snmp",
    "proc/swaps",
    "sys/devices/system/clocksource/clocksource0/current_clocksource",
    "sys/devices/system/clocksource/clocksource0/available_clocksource",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "proc/sys/vm/overcommit_memory",
    "proc/sys/kernel/io_uring_disabled",
    "proc/sys/kernel/io_uring_group",
];

/// Text of files by path without the leading `/`, and what no file tells.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) files: BTreeMap<String, String>,
    /// Operations of io_uring that are lacking, or why there is no ring at all.
    pub(crate) ring: Result<Vec<&'static str>, String>,
    pub(crate) clock_synchronized: Option<bool>,
    /// Cores that this process may use.
    pub(crate) cores: u64,
    pub(crate) memory: Option<Limit>,
    /// CPU quotas of the control groups, in cores, and who says so.
    pub(crate) cpu_quotas: Vec<(String, f64)>,
    /// Network devices with hardware behind them.
    pub(crate) devices: Vec<String>,
    /// What `ethtool -k` says about each, where it is installed.
    pub(crate) offloads: BTreeMap<String, String>,
    /// Bytes of the certificate chain, or why they are not known; `None` if nobody named a configuration.
    pub(crate) chain: Option<Result<u64, String>>,
    /// When that chain is good, or why it is not known.
    pub(crate) validity: Option<Result<Validity, String>>,
    /// The wall clock, in seconds since 1970.
    pub(crate) now_s: i64,
}

impl Host {
    /// Reads this host.
    pub(crate) fn read() -> Self {
        let root = Path::new("/");
        let mut host = Self {
            files: BTreeMap::new(),
            ring: roadstead_net::probe::ring().map_err(|error| error.to_string()),
            clock_synchronized: roadstead_net::probe::clock_is_synchronized(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            memory: host::memory(root),
            cpu_quotas: cpu_quotas(root),
            devices: Vec::new(),
            offloads: BTreeMap::new(),
            chain: None,
            validity: None,
            now_s: clock::unix_s(),
        };
        FILES.iter().for_each(|file| host.take(Path::new(file)));
        for cpu in entries("sys/devices/system/cpu") {
            host.take(&cpu.join("cpufreq/scaling_governor"));
        }
        for device in entries("sys/class/net") {
            if root.join(&device).join("device").exists() {
                host.take_device(&device);
            }
        }
        host
    }

    /// The trimmed text of a file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|text| text.trim())
    }

    /// A file that holds one number.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Files whose path begins and ends like this, in order.
    pub(crate) fn matching<'a>(
        &'a self,
        prefix: &'a str,
        suffix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.files.range(prefix.to_owned()..);
        files
            .take_while(move |(path, _)| path.starts_with(prefix))
            .filter(move |(path, _)| path.ends_with(suffix))
            .map(|(path, text)| (path.as_str(), text.trim()))
    }

    fn take(&mut self, path: &Path) {
        if let Ok(text) = std::fs::read_to_string(Path::new("/").join(path)) {
            self.files.insert(path.display().to_string(), text);
        }
    }

    fn take_device(&mut self, device: &Path) {
        let name = device.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        for queue in entries(device.join("queues")) {
            for file in ["rps_cpus", "rps_flow_cnt", "xps_cpus"] {
                self.take(&queue.join(file));
            }
        }
        // PCI devices list their interrupts; those of virtio belong to the parent.
        for folder in ["device/msi_irqs", "device/../msi_irqs"] {
            for irq in entries(device.join(folder)) {
                let number = irq.file_name().unwrap_or_default().to_string_lossy();
                let path = format!("proc/irq/{number}/smp_affinity_list");
                if let Ok(text) = std::fs::read_to_string(Path::new("/").join(path)) {
                    let key = format!("irq/{name}/{number}");
                    self.files.insert(key, text);
                }
            }
        }
        let ethtool = Command::new("ethtool").arg("-k").arg(&name).output();
        if let Some(output) = ethtool.ok().filter(|output| output.status.success()) {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            self.offloads.insert(name.clone(), text);
        }
        self.devices.push(name);
    }
}

/// What a folder below `/` holds, sorted; nothing if it is not there.
fn entries(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let folder = folder.as_ref();
    let read = std::fs::read_dir(Path::new("/").join(folder));
    let mut names: Vec<PathBuf> = read
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| folder.join(entry.file_name()))
        .collect();
    names.sort();
    names
}

/// `cpu.max` holds quota and period in microseconds, or `max`; version 1 has a file for each, and the period
/// is nearly always 100 ms.
fn cpu_quotas(root: &Path) -> Vec<(String, f64)> {
    let files = host::group_files(root, "cpu", "cpu.max", "cpu.cfs_quota_us");
    let quota = |(source, text): (String, String)| {
        let mut words = text.split_whitespace();
        let quota: f64 = words.next()?.parse().ok()?;
        let period: f64 = words
            .next()
            .map_or(Some(100_000.0), |word| word.parse().ok())?;
        (quota > 0.0).then_some((source, quota / period))
    };
    files.into_iter().filter_map(quota).collect()
}
