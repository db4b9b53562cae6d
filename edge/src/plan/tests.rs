//! The plan agrees with itself, with its document, and with arithmetic done by hand.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    plan: Plan,
}

fn plan(options: &[&str]) -> Plan {
    let words = ["plan"].iter().chain(options);
    Line::try_parse_from(words).expect("valid options").plan
}

fn value(plan: &Plan, name: &str) -> f64 {
    let calculation = formulas::calculate(plan);
    let mut steps = calculation.sections.iter().flat_map(|(_, steps)| steps);
    steps
        .find(|step| step.name == name)
        .unwrap_or_else(|| panic!("there is no step {name}"))
        .value
}

fn near(found: f64, expected: f64) {
    assert!(
        (found / expected - 1.0).abs() < 0.005,
        "{found} is not {expected}"
    );
}

#[test]
fn the_document_is_what_the_command_prints() {
    let plan = plan(&[]);
    let printed = text(&plan, &formulas::calculate(&plan));
    let written = include_str!("../../../docs/PLAN.md");
    assert!(
        printed == written,
        "docs/PLAN.md is stale: roadstead plan > docs/PLAN.md\n{printed}"
    );
}

#[test]
fn two_billion_users_by_hand() {
    let plan = plan(&[]);
    near(value(&plan, "sessions"), 2e8);
    near(value(&plan, "messages_s"), 2.894e6);
    assert_eq!(value(&plan, "deliveries"), 3.0);
    // 2.894e6 / 2e8 = 0.01447; 0.01447 x 3 x 39 + 46 / 120 + 10 / 86,400 x 2.5 x 238 = 2.145 us.
    near(value(&plan, "session_cpu_us"), 2.145);
    near(value(&plan, "sessions_by_cpu"), 8e6 / 2.145);
    // 64 GiB x 0.8 - 16 x 34 MiB, at 1,038 bytes.
    near(value(&plan, "sessions_by_memory"), 52.41e6);
    assert_eq!(value(&plan, "sessions_per_host"), 2e6);
    assert_eq!(value(&plan, "hosts"), 120.0);
    // The table of docs/OPERATIONS.md: 4 + 8.5 writes a message.
    near(value(&plan, "fdb_writes_s"), 2.894e6 * 12.5 * 3.0);
    near(value(&plan, "fdb_processes"), 9_043.0);
    assert_eq!(value(&plan, "fdb_clusters"), 19.0);
    near(value(&plan, "waiting_tb"), 10.5);
}

#[test]
fn memory_cpu_or_prudence_limits_a_host() {
    let small = plan(&["--host-ram-gib", "2"]);
    assert_eq!(
        value(&small, "sessions_per_host"),
        value(&small, "sessions_by_memory")
    );
    let busy = plan(&["--messages-per-day", "5e12"]);
    assert_eq!(
        value(&busy, "sessions_per_host"),
        value(&busy, "sessions_by_cpu")
    );
    let quinn = plan(&["--quic-engine", "quinn"]);
    // At 17,779 bytes.
    near(value(&quinn, "sessions_by_memory"), 3.061e6);
}

#[test]
fn nonsense_is_refused() {
    for option in [
        "--users=0",
        "--cpu-share=1.5",
        "--devices=-1",
        "--users=many",
        "--copies=inf",
    ] {
        assert!(Line::try_parse_from(["plan", option]).is_err(), "{option}");
    }
    assert_eq!(plan(&["--users", "1_000"]).users, 1_000.0);
}

#[test]
fn every_number_of_a_formula_is_explained() {
    let plan = plan(&[]);
    let calculation = formulas::calculate(&plan);
    let mut known: Vec<&str> = given(&plan).iter().map(|(name, ..)| *name).collect();
    known.extend(calculation.measured.iter().map(|it| it.name));
    known.extend(["ceiling_share", "shard_bytes"]);
    for (_, steps) in &calculation.sections {
        for step in steps {
            for (input, _) in &step.inputs {
                assert!(
                    known.contains(input),
                    "{input} of {} is not explained",
                    step.name
                );
            }
            known.push(step.name);
            assert!(step.value.is_finite() && step.value >= 0.0, "{step:?}");
        }
    }
    let report = report(&plan, &calculation);
    assert_eq!(report["inputs"]["users"], 2e9);
    assert_eq!(
        report["sections"][0]["steps"][0]["formula"],
        "users * online_share"
    );
}
