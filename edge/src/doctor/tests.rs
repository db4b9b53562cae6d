//! A good host, and what is found when one thing about it is changed.

use std::collections::BTreeMap;

use super::checks::{self, Need};
use super::finding::{Finding, Severity};
use super::host::Host;
use super::*;
use crate::config::QuicEngine;
use roadstead_net::host::Limit;

const NEED: Need = Need {
    sessions: 1_000_000,
    shards: 4,
    engine: QuicEngine::Lean,
};

const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0";

fn good() -> Host {
    let files = [
        ("proc/sys/kernel/osrelease", "6.12.3-amd64\n"),
        (
            "proc/self/limits",
            "Limit  Soft Limit  Hard Limit  Units\n\
             Max open files            65536     65536     files\n\
             Max locked memory         unlimited unlimited bytes\n",
        ),
        ("proc/sys/net/core/rmem_max", "16777216\n"),
        ("proc/sys/net/core/wmem_default", "4194304\n"),
        ("proc/sys/net/core/netdev_max_backlog", "16384\n"),
        ("proc/sys/net/core/rps_sock_flow_entries", "0\n"),
        ("proc/sys/net/ipv4/udp_mem", "1000 2000 1000000\n"),
        (
            "proc/net/softnet_stat",
            "01b24c80 00000000 7\n017c347a 00000000 a\n",
        ),
        (
            "proc/net/snmp",
            "Udp: InDatagrams RcvbufErrors MemErrors\nUdp: 9000000 1 0\n",
        ),
        ("proc/swaps", "Filename Type Size Used Priority\n"),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "tsc\n",
        ),
        (
            "sys/devices/system/clocksource/clocksource0/available_clocksource",
            "tsc hpet\n",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        ),
        (
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "performance\n",
        ),
        (
            "sys/class/net/eth0/queues/rx-0/rps_cpus",
            "00000000,0000000f\n",
        ),
        ("sys/class/net/eth0/queues/tx-0/xps_cpus", "3\n"),
        ("sys/class/net/eth0/queues/tx-1/xps_cpus", "c\n"),
        ("irq/eth0/41", "0-1\n"),
        ("irq/eth0/42", "2-3\n"),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let features = "Features for eth0:\nrx-checksumming: on\ngeneric-receive-offload: on\n\
                    tx-udp-segmentation: off [fixed]\n";
    Host {
        files: BTreeMap::from(files),
        ring: Ok(Vec::new()),
        clock_synchronized: Some(true),
        cores: 4,
        memory: Some(Limit {
            bytes: 8 << 30,
            source: "/proc/meminfo".into(),
        }),
        cpu_quotas: Vec::new(),
        devices: vec!["eth0".into()],
        offloads: BTreeMap::from([("eth0".into(), features.into())]),
        chain: Some(Ok(900)),
        validity: None,
        now_s: 0,
    }
}

/// The good host with one file changed.
fn with(path: &str, text: &str) -> Host {
    let mut host = good();
    host.files.insert(path.into(), text.into());
    host
}

fn find(host: &Host, check: &str) -> Finding {
    find_for(host, &NEED, check)
}

fn find_for(host: &Host, need: &Need, check: &str) -> Finding {
    let mut findings = checks::all(host, need).into_iter();
    findings
        .find(|finding| finding.check == check)
        .unwrap_or_else(|| panic!("there is no check {check}"))
}

/// It is found, is this bad, and the fix says this.
fn is(host: &Host, check: &str, severity: Severity, fix: &str) {
    let finding = find(host, check);
    assert_eq!(finding.severity, severity, "{finding:?}");
    assert!(finding.fix.contains(fix), "{finding:?}");
}

#[test]
fn a_good_host_passes() {
    let findings = checks::all(&good(), &NEED);
    let bad: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Ok)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(exit_code(&findings), 0);
}

#[test]
fn every_finding_that_asks_for_action_says_which() {
    let mut host = good();
    host.files.clear();
    host.cores = 1;
    host.memory = None;
    for host in [&host, &Host::read(), &good()] {
        for finding in checks::all(host, &NEED) {
            assert!(
                !finding.wanted.is_empty() && !finding.why.is_empty(),
                "{finding:?}"
            );
            let acts = finding.severity >= Severity::Warning;
            assert!(!acts || !finding.fix.is_empty(), "{finding:?}");
        }
    }
}

#[test]
fn the_kernel_is_too_old() {
    let path = "proc/sys/kernel/osrelease";
    is(
        &with(path, "5.15.0-91-generic"),
        "kernel",
        Severity::Failure,
        "6.1",
    );
    is(&with(path, "6.0.9"), "kernel", Severity::Failure, "6.1");
    is(&with(path, "7.0"), "kernel", Severity::Ok, "");
    is(&with(path, "custom"), "kernel", Severity::Note, "");
}

#[test]
fn io_uring_is_forbidden_or_incomplete() {
    let mut host = good();
    host.ring = Err("io_uring is forbidden for this process".into());
    is(
        &host,
        "io_uring",
        Severity::Failure,
        "kernel.io_uring_disabled=0",
    );
    host.ring = Ok(vec!["MSG_RING"]);
    is(&host, "io_uring", Severity::Failure, "6.1");
    assert_eq!(find(&host, "io_uring").found, "lacks MSG_RING");
}

#[test]
fn limits_of_the_process_are_low() {
    let limits = "Max open files 1024 1024 files\nMax locked memory 65536 65536 bytes\n";
    let host = with("proc/self/limits", limits);
    is(&host, "nofile", Severity::Warning, "LimitNOFILE");
    is(&host, "memlock", Severity::Warning, "LimitMEMLOCK");
    // The server raises the one by itself, and no program may raise the other.
    let limits = "Max open files 1024 524288 files\nMax locked memory 65536 unlimited bytes\n";
    let host = with("proc/self/limits", limits);
    assert_eq!(find(&host, "nofile").severity, Severity::Ok);
    is(&host, "memlock", Severity::Warning, "LimitMEMLOCK");
}

#[test]
fn buffers_are_small() {
    let host = with("proc/sys/net/core/rmem_max", "212992");
    is(
        &host,
        "rmem_max",
        Severity::Warning,
        "net.core.rmem_max=16777216",
    );
    let host = with("proc/sys/net/core/wmem_default", "212992");
    is(
        &host,
        "wmem_default",
        Severity::Warning,
        "net.core.wmem_default=",
    );
    let host = with("proc/sys/net/core/netdev_max_backlog", "1000");
    is(
        &host,
        "netdev_max_backlog",
        Severity::Warning,
        "netdev_max_backlog=16384",
    );
    // 4 shards of twice 16 MiB are 32,768 pages.
    let host = with("proc/sys/net/ipv4/udp_mem", "1 2 32767");
    is(
        &host,
        "udp_mem",
        Severity::Warning,
        "net.ipv4.udp_mem='32768 ",
    );
    let host = with("proc/sys/net/ipv4/udp_mem", "1 2 32768");
    is(&host, "udp_mem", Severity::Ok, "");
}

#[test]
fn datagrams_were_dropped() {
    let snmp = "Udp: InDatagrams RcvbufErrors MemErrors\nUdp: 1000000 11 0\n";
    let host = with("proc/net/snmp", snmp);
    is(&host, "dropped", Severity::Warning, "");
    let host = with("proc/net/softnet_stat", "00ff 0000ffff 0\n");
    let finding = find(&host, "dropped");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.found.contains("backlog 65,535"), "{finding:?}");
}

#[test]
fn conntrack_matters_when_it_tracks() {
    let (max, count) = (
        "proc/sys/net/netfilter/nf_conntrack_max",
        "proc/sys/net/netfilter/nf_conntrack_count",
    );
    let mut host = with(max, "262144");
    host.files.insert(count.into(), "0".into());
    is(&host, "conntrack", Severity::Ok, "");
    host.files.insert(count.into(), "17".into());
    is(&host, "conntrack", Severity::Failure, "nftables");
    host.files.insert(max.into(), "4000000".into());
    is(&host, "conntrack", Severity::Warning, "nftables");
}

#[test]
fn the_device_leaves_cores_idle() {
    let host = with("sys/class/net/eth0/queues/rx-0/rps_cpus", "0");
    is(&host, "rps", Severity::Warning, "tuning/apply --write nic");
    let host = with(
        "sys/class/net/eth0/queues/tx-1/xps_cpus",
        "00000000,00000000",
    );
    is(&host, "xps", Severity::Warning, "tuning/apply --write nic");
    let mut host = with("sys/class/net/eth0/queues/rx-1/rps_cpus", "0");
    host.files.insert("irq/eth0/41".into(), "2".into());
    host.files.insert("irq/eth0/42".into(), "2".into());
    is(&host, "irq", Severity::Warning, "tuning/apply --write nic");
    let host = with("proc/sys/net/core/rps_sock_flow_entries", "32768");
    is(&host, "rfs", Severity::Note, "rps_sock_flow_entries=0");
}

#[test]
fn an_offload_is_off() {
    let mut host = good();
    let features = "rx-checksumming: on\ngeneric-receive-offload: off\ntx-udp-segmentation: off\n";
    host.offloads.insert("eth0".into(), features.into());
    is(
        &host,
        "offloads",
        Severity::Warning,
        "ethtool -K eth0 gro on",
    );
    is(
        &host,
        "offloads",
        Severity::Warning,
        "tx-udp-segmentation on",
    );
    host.offloads.clear();
    is(&host, "offloads", Severity::Note, "ethtool");
}

#[test]
fn cores_are_missing_or_throttled() {
    let mut host = good();
    host.cores = 2;
    is(&host, "cores", Severity::Warning, "--shards 2");
    let mut host = good();
    host.cpu_quotas = vec![("/a".into(), 8.0), ("/b".into(), 1.5)];
    is(&host, "cores", Severity::Warning, "CPUQuota");
    assert!(find(&host, "cores").found.contains("/b"));
}

#[test]
fn clocks_are_slow_or_alone() {
    let current = format!("{CLOCKS}/current_clocksource");
    is(
        &with(&current, "hpet"),
        "clock source",
        Severity::Warning,
        "echo tsc >",
    );
    let mut host = with(&current, "acpi_pm");
    let available = format!("{CLOCKS}/available_clocksource");
    host.files.insert(available, "acpi_pm hpet".into());
    is(&host, "clock source", Severity::Warning, "tsc=reliable");
    let mut host = good();
    host.clock_synchronized = Some(false);
    is(&host, "time sync", Severity::Warning, "chrony");
}

#[test]
fn power_saving_and_huge_pages() {
    let path = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    is(
        &with(path, "powersave"),
        "governor",
        Severity::Warning,
        "performance",
    );
    let path = "sys/kernel/mm/transparent_hugepage/enabled";
    is(
        &with(path, "[always] madvise never"),
        "huge pages",
        Severity::Note,
        "madvise",
    );
}

#[test]
fn memory_is_short() {
    // 8 GiB, ceiling 6.4 GiB, base 392 MiB: 6.2 million lean sessions, 360,000 of quinn.
    let with_sessions = |sessions, engine| Need {
        sessions,
        shards: 4,
        engine,
    };
    let of = |sessions, engine| find_for(&good(), &with_sessions(sessions, engine), "memory");
    assert_eq!(of(5_300_000, QuicEngine::Lean).severity, Severity::Ok);
    assert_eq!(of(6_000_000, QuicEngine::Lean).severity, Severity::Warning);
    assert_eq!(of(6_300_000, QuicEngine::Lean).severity, Severity::Failure);
    let finding = of(1_000_000, QuicEngine::Quinn);
    assert_eq!(finding.severity, Severity::Failure);
    assert!(finding.fix.contains("--quic-engine lean"), "{finding:?}");
    let swaps = "Filename Type Size\n/dev/vdb partition 100\n";
    is(
        &with("proc/swaps", swaps),
        "swap",
        Severity::Warning,
        "swapoff",
    );
}

#[test]
fn the_exit_code_is_that_of_the_worst() {
    let warned = with("proc/sys/net/core/rmem_max", "212992");
    assert_eq!(exit_code(&checks::all(&warned, &NEED)), 1);
    let mut failed = warned;
    failed.ring = Err("no".into());
    let findings = checks::all(&failed, &NEED);
    assert_eq!(exit_code(&findings), 2);
    let shown = text(&NEED, &findings);
    assert!(shown.contains("1 failures, 1 warnings"), "{shown}");
    let report = report(&NEED, &findings);
    assert_eq!(report["verdict"], "failure");
    assert_eq!(report["exit_code"], 2);
    assert_eq!(report["quic_engine"], "lean");
    assert_eq!(report["findings"][1]["check"], "io_uring");
    assert_eq!(report["findings"][1]["severity"], "failure");
}

#[test]
fn what_the_tuning_sets_is_what_the_doctor_wants() {
    let mut host = good();
    for line in include_str!("../../../tuning/sysctl.d/90-roadstead.conf").lines() {
        if let Some((key, value)) = line.split_once(" = ") {
            let path = format!("proc/sys/{}", key.replace('.', "/"));
            host.files.insert(path, value.into());
        }
    }
    for check in ["rmem_max", "wmem_default", "netdev_max_backlog"] {
        is(&host, check, Severity::Ok, "");
    }
}

/// T11: three times what a newcomer sent is all that it may be sent.
#[test]
fn tf9_t11_a_long_certificate_chain_is_a_warning() {
    let mut host = good();
    for (chain, severity) in [
        (None, Severity::Ok),
        (Some(Ok(3_000)), Severity::Ok),
        (Some(Ok(3_001)), Severity::Warning),
        (Some(Ok(5_000)), Severity::Warning),
        (Some(Err("no such file".into())), Severity::Note),
    ] {
        host.chain = chain;
        is(&host, "certificate_chain", severity, "");
    }
}

/// What is read is the chain of the configuration, in bytes of certificates and not of text.
#[test]
fn tf9_t11_the_chain_of_a_configuration_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("one");
    let (path, config) = (folder.path().join("cert.pem"), folder.path().join("c.toml"));
    std::fs::write(&config, format!("data = {:?}\n", folder.path())).expect("written");
    assert!(chain(&config).is_err_and(|error| error.contains("cert.pem")));
    std::fs::write(&path, made.cert.pem().repeat(2)).expect("written");
    let expected = u64::try_from(made.cert.der().len() * 2).expect("small");
    assert_eq!(chain(&config), Ok(expected));
}

/// A certificate outside of its dates lets nobody in; near its end it is said.
#[test]
fn fd10_a_certificate_past_its_end_will_not_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("one");
    let config = folder.path().join("c.toml");
    std::fs::write(&config, format!("data = {:?}\n", folder.path())).expect("written");
    assert!(validity(&config).is_err_and(|error| error.contains("cert.pem")));
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
    let validity = validity(&config).expect("dates");
    let (from, until) = (validity.from.unix_s(), validity.until.unix_s());
    let mut host = good();
    host.validity = Some(Ok(validity));
    for (now_s, severity, fix) in [
        (from - 1, Severity::Failure, "clock"),
        (from, Severity::Ok, ""),
        (until - 14 * 86_400 + 1, Severity::Warning, "renew"),
        (until + 1, Severity::Failure, "renew"),
    ] {
        host.now_s = now_s;
        is(&host, "certificate_dates", severity, fix);
    }
}
