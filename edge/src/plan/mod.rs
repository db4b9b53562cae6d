//! `roadstead plan`: from users and their habits to hosts, memory, packets and disks, every formula shown.
//! What it prints is Markdown.

mod formulas;
mod inputs;
mod step;

use serde_json::json;

use crate::cli;
use crate::numbers::readable;
use formulas::Calculation;
pub(crate) use inputs::Plan;

/// Calculates and prints.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<()> {
    let calculation = formulas::calculate(plan);
    let text = if plan.json {
        serde_json::to_string_pretty(&report(plan, &calculation))?
    } else {
        text(plan, &calculation)
    };
    cli::line(text.trim_end())
}

/// What was given, in the order of the options: option, value, meaning.
fn given(plan: &Plan) -> [(&'static str, f64, &'static str); 16] {
    [
        ("users", plan.users, "registered"),
        (
            "online_share",
            plan.online_share,
            "sessions open at once, for each user",
        ),
        ("devices", plan.devices, "of a user"),
        ("messages_per_day", plan.messages_per_day, "sent by all"),
        ("payload_bytes", plan.payload_bytes, "of a message"),
        (
            "peak_factor",
            plan.peak_factor,
            "busiest hour to average hour",
        ),
        ("heartbeat_s", plan.heartbeat_s, "between two heartbeats"),
        ("connects_per_day", plan.connects_per_day, "of a session"),
        (
            "waiting_share",
            plan.waiting_share,
            "of inbox entries wait for a device that is away",
        ),
        ("waiting_days", plan.waiting_days, "how long those wait"),
        ("host_cores", plan.host_cores, ""),
        ("host_ram_gib", plan.host_ram_gib, ""),
        (
            "host_sessions_max",
            plan.host_sessions_max,
            "whatever fits: what one failure may cut off",
        ),
        (
            "cpu_share",
            plan.cpu_share,
            "of a host's CPU, used in the busiest hour",
        ),
        (
            "spare_share",
            plan.spare_share,
            "hosts for failures and upgrades",
        ),
        ("copies", plan.copies, "that FoundationDB keeps"),
    ]
}

fn report(plan: &Plan, calculation: &Calculation) -> serde_json::Value {
    let inputs: serde_json::Map<_, _> = given(plan)
        .into_iter()
        .map(|(name, value, _)| (name.to_owned(), json!(value)))
        .collect();
    let steps: Vec<_> = calculation
        .sections
        .iter()
        .map(|(title, steps)| json!({ "title": title, "steps": steps }))
        .collect();
    json!({ "inputs": inputs, "measured": calculation.measured, "sections": steps })
}

fn text(plan: &Plan, calculation: &Calculation) -> String {
    let engine = format!("{:?}", plan.quic_engine).to_lowercase();
    let mut lines = vec![
        "# Plan".to_owned(),
        String::new(),
        format!(
            "{} users, {} messages a day, QUIC engine {engine}. Made by `roadstead plan`; every number can be \
             changed by the option of its name.",
            readable(plan.users),
            readable(plan.messages_per_day)
        ),
        String::new(),
        "The costs were measured on two cores shared with the load generator and are extended linearly: take \
         the result for the order of magnitude, then measure a host of your own with `loadgen`."
            .to_owned(),
        section("Given"),
    ];
    lines.push("| option | value | |\n|---|---:|---|".into());
    for (name, value, meaning) in given(plan) {
        lines.push(format!("| `{name}` | {} | {meaning} |", readable(value)));
    }
    lines.push(section("Costs"));
    lines.push("| cost | value | source |\n|---|---:|---|".into());
    for cost in &calculation.measured {
        let value = readable(cost.value);
        lines.push(format!(
            "| `{}` | {value} {} | {} |",
            cost.name, cost.unit, cost.source
        ));
    }
    for (title, steps) in &calculation.sections {
        lines.push(section(title));
        for step in steps {
            let inputs: Vec<String> = step
                .inputs
                .iter()
                .map(|(name, value)| format!("{name} {}", readable(*value)))
                .collect();
            let why = if step.why.is_empty() { "" } else { ": " };
            lines.push(format!(
                "- **{} = {} {}**{why}{}\n  `{}`\n  with {}",
                step.name,
                readable(step.value),
                step.unit,
                step.why,
                step.formula,
                inputs.join(", ")
            ));
        }
    }
    lines.join("\n") + "\n"
}

fn section(title: &str) -> String {
    format!("\n## {title}\n")
}

#[cfg(test)]
mod tests;
