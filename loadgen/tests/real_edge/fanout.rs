//! `loadgen fanout --receivers N`.

use crate::support::Edge;

/// Every send reaches each of its receivers, once, on each device, and is measured to the last of them.
#[test]
fn every_delivery_of_a_fan_out_is_accounted_for() {
    const RECEIVERS: u64 = 15;
    let edge = Edge::start();
    let options = ["--sessions", "320", "--devices", "2", "--duration", "3"];
    let quick = ["--receivers", "15", "--rate", "20", "--quiet"];
    let done = edge.run(&["fanout"], &[&options[..], &quick].concat());
    let done = done.passed();
    let sent = done.count("messages.sent");
    assert!(
        sent >= RECEIVERS * 20 && sent.is_multiple_of(RECEIVERS),
        "{sent}"
    );
    // Both devices of the receiver, and the sender's other one.
    assert_eq!(done.count("messages.to_deliver"), 3 * sent);
    assert_eq!(done.count("messages.delivered"), 3 * sent);
    assert_eq!(done.count("messages.acknowledged"), sent);
    assert_eq!(
        done.count("receipts.delivered"),
        2 * sent,
        "both devices of the sender are told"
    );
    assert_eq!(
        done.count("latency_ms.fan_out.count"),
        sent / RECEIVERS,
        "one per send"
    );
    assert!(done.number("latency_ms.fan_out.max") >= done.number("latency_ms.fan_out.p50"));
}
