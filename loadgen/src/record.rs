//! The course of a run: one point a second, in bounded space.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::clock::{Micros, seconds};
use crate::control::{Stage, Status};
use crate::latency::{Latency, Percentiles};
use crate::process;
use crate::target::Sample;

/// The shortest time that a point stands for.
const INTERVAL: Micros = 1_000_000;

/// Two hours in seconds are 7,200; a longer run gets coarser points.
const POINTS_MAX: usize = 7_200;

/// A run over some time. Rates and latencies are those of the time since the point before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// End of the time, in seconds since the run began.
    pub(crate) at_s: f64,
    pub(crate) stage: Cow<'static, str>,
    pub(crate) sessions: u32,
    pub(crate) handshakes_per_s: f64,
    pub(crate) heartbeats_per_s: f64,
    pub(crate) sent_per_s: f64,
    pub(crate) acknowledged_per_s: f64,
    pub(crate) delivered_per_s: f64,
    /// Connections lost in this time.
    pub(crate) disconnected: u64,
    /// Sends begun late in this time.
    pub(crate) late_sends: u64,
    pub(crate) ack_ms: Percentiles,
    pub(crate) deliver_ms: Percentiles,
    pub(crate) target_rss_bytes: Option<u64>,
    /// CPUs in use, of the server and of this end.
    pub(crate) target_cpus: Option<f64>,
    pub(crate) generator_rss_bytes: u64,
    pub(crate) generator_cpus: f64,
}

/// Everything that a point is made of, at one moment. Counts are totals.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    pub(crate) at: Micros,
    pub(crate) stage: Stage,
    pub(crate) status: Status,
    pub(crate) server: Option<Sample>,
    pub(crate) own: Option<process::Usage>,
}

/// Takes the points.
#[derive(Debug)]
pub(crate) struct Recorder {
    points: Vec<Point>,
    points_max: usize,
    interval: Micros,
    before: Option<Now>,
    ack: Latency,
    deliver: Latency,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self::with_room(POINTS_MAX)
    }

    fn with_room(points_max: usize) -> Self {
        Self {
            points: Vec::new(),
            points_max,
            interval: INTERVAL,
            before: None,
            ack: Latency::new(),
            deliver: Latency::new(),
        }
    }

    /// Takes latencies of the last moment.
    pub(crate) fn take(&mut self, ack: &Latency, deliver: &Latency) {
        self.ack.merge(ack);
        self.deliver.merge(deliver);
    }

    /// Whether the next point is due.
    pub(crate) fn is_due(&self, at: Micros) -> bool {
        self.before
            .as_ref()
            .is_none_or(|before| at >= before.at + self.interval)
    }

    /// Ends a point.
    pub(crate) fn add(&mut self, now: Now) {
        if let Some(before) = &self.before {
            let point = point(before, &now, &self.ack, &self.deliver);
            self.points.push(point);
            self.ack.clear();
            self.deliver.clear();
        }
        self.before = Some(now);
        if self.points.len() >= self.points_max {
            self.coarsen();
        }
    }

    pub(crate) fn into_points(self) -> Vec<Point> {
        self.points
    }

    /// Makes one point of every two.
    fn coarsen(&mut self) {
        let old = std::mem::take(&mut self.points);
        self.points = old.chunks(2).map(join).collect();
        self.interval *= 2;
    }
}

fn point(before: &Now, now: &Now, ack: &Latency, deliver: &Latency) -> Point {
    let time = seconds(now.at - before.at).max(1e-6);
    let (new, old) = (&now.status, &before.status);
    let rate = |new: u64, old: u64| count(new.saturating_sub(old)) / time;
    let handshakes = |status: &Status| status.handshakes_full + status.handshakes_resumed;
    // CPU times are microseconds.
    let cpus = |new: Micros, old: Micros| rate(new, old) / 1e6;
    Point {
        at_s: seconds(now.at),
        stage: now.stage.name().into(),
        sessions: new.active,
        handshakes_per_s: rate(handshakes(new), handshakes(old)),
        heartbeats_per_s: rate(new.heartbeats, old.heartbeats),
        sent_per_s: rate(new.tally.sent, old.tally.sent),
        acknowledged_per_s: rate(new.tally.acknowledged, old.tally.acknowledged),
        delivered_per_s: rate(new.tally.delivered, old.tally.delivered),
        disconnected: new.disconnected.saturating_sub(old.disconnected),
        late_sends: new.late_sends.saturating_sub(old.late_sends),
        ack_ms: ack.corrected(),
        deliver_ms: deliver.corrected(),
        target_rss_bytes: now.server.map(|sample| sample.rss_bytes),
        target_cpus: now
            .server
            .zip(before.server)
            .map(|(new, old)| cpus(new.cpu, old.cpu)),
        generator_rss_bytes: now.own.map_or(0, |own| own.rss_bytes),
        generator_cpus: now
            .own
            .zip(before.own)
            .map_or(0.0, |(new, old)| cpus(new.cpu, old.cpu)),
    }
}

/// The points of two machines that began at one instant: counts and rates add up, and of percentiles the
/// worse are kept. What only one of them knows is taken from it.
pub(crate) fn side_by_side(ours: &[Point], theirs: &[Point]) -> Vec<Point> {
    let both = ours.len().min(theirs.len());
    let mut points: Vec<Point> = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| together(a, b))
        .collect();
    points.extend_from_slice(&ours[both..]);
    points.extend_from_slice(&theirs[both..]);
    points
}

fn together(a: &Point, b: &Point) -> Point {
    Point {
        sessions: a.sessions + b.sessions,
        handshakes_per_s: a.handshakes_per_s + b.handshakes_per_s,
        heartbeats_per_s: a.heartbeats_per_s + b.heartbeats_per_s,
        sent_per_s: a.sent_per_s + b.sent_per_s,
        acknowledged_per_s: a.acknowledged_per_s + b.acknowledged_per_s,
        delivered_per_s: a.delivered_per_s + b.delivered_per_s,
        disconnected: a.disconnected + b.disconnected,
        late_sends: a.late_sends + b.late_sends,
        ack_ms: a.ack_ms.worse(&b.ack_ms),
        deliver_ms: a.deliver_ms.worse(&b.deliver_ms),
        target_rss_bytes: a.target_rss_bytes.or(b.target_rss_bytes),
        target_cpus: a.target_cpus.or(b.target_cpus),
        generator_rss_bytes: a.generator_rss_bytes + b.generator_rss_bytes,
        generator_cpus: a.generator_cpus + b.generator_cpus,
        ..a.clone()
    }
}

/// One point for the time of one or two: what is at an end is the last's, rates are averages, and of
/// percentiles the worse are kept, so that no peak is lost.
fn join(points: &[Point]) -> Point {
    let [first, last] = points else {
        return points[0].clone();
    };
    let mean = |of: fn(&Point) -> f64| (of(first) + of(last)) / 2.0;
    Point {
        handshakes_per_s: mean(|p| p.handshakes_per_s),
        heartbeats_per_s: mean(|p| p.heartbeats_per_s),
        sent_per_s: mean(|p| p.sent_per_s),
        acknowledged_per_s: mean(|p| p.acknowledged_per_s),
        delivered_per_s: mean(|p| p.delivered_per_s),
        disconnected: first.disconnected + last.disconnected,
        late_sends: first.late_sends + last.late_sends,
        ack_ms: first.ack_ms.worse(&last.ack_ms),
        deliver_ms: first.deliver_ms.worse(&last.deliver_ms),
        target_cpus: first
            .target_cpus
            .zip(last.target_cpus)
            .map(|(a, b)| (a + b) / 2.0),
        generator_cpus: mean(|p| p.generator_cpus),
        ..last.clone()
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a second")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(at_s: u64, sent: u64, cpu_s: u64) -> Now {
        let mut status = Status {
            active: 5,
            disconnected: at_s,
            ..Status::default()
        };
        status.tally.sent = sent;
        Now {
            at: at_s * 1_000_000,
            stage: Stage::Exchange,
            status,
            server: Some(Sample {
                pid: 1,
                rss_bytes: 4_096 * at_s,
                cpu: cpu_s * 1_000_000,
            }),
            own: None,
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_point_is_what_happened_since_the_one_before() {
        let mut recorder = Recorder::new();
        assert!(recorder.is_due(0));
        recorder.add(now(1, 100, 3));
        assert!(!recorder.is_due(1_999_999) && recorder.is_due(2_000_000));
        let mut ack = Latency::new();
        ack.record(0, 0, 7_000);
        recorder.take(&ack, &Latency::new());
        recorder.add(now(3, 500, 4));
        recorder.add(now(4, 500, 4));
        let points = recorder.into_points();
        assert_eq!(points.len(), 2);
        assert!(close(points[0].sent_per_s, 200.0) && close(points[1].sent_per_s, 0.0));
        assert!(close(points[0].target_cpus.expect("known"), 0.5));
        assert_eq!(points[0].target_rss_bytes, Some(3 * 4_096));
        assert_eq!((points[0].disconnected, &*points[0].stage), (2, "exchange"));
        assert_eq!((points[0].ack_ms.count, points[1].ack_ms.count), (1, 0));
        assert!(points[0].ack_ms.p99 > 6.9);
    }

    #[test]
    fn machines_add_up_second_by_second() {
        let points = |rate: u64, seconds: u64| {
            let mut recorder = Recorder::new();
            (0..=seconds).for_each(|second| recorder.add(now(second, second * rate, second)));
            recorder.into_points()
        };
        let both = side_by_side(&points(10, 3), &points(5, 2));
        let sent: Vec<_> = both.iter().map(|point| point.sent_per_s).collect();
        assert!(
            close(sent[0], 15.0) && close(sent[1], 15.0) && close(sent[2], 10.0),
            "{sent:?}"
        );
        assert_eq!((both[0].sessions, both[2].sessions), (10, 5));
        assert!(
            close(both[0].target_cpus.expect("known"), 1.0),
            "one server, not two"
        );
    }

    #[test]
    fn a_long_run_gets_coarser_points_and_keeps_its_totals_and_peaks() {
        let mut recorder = Recorder::with_room(4);
        for second in 0..=4 {
            let mut ack = Latency::new();
            ack.record(0, 0, 1_000 * (5 - second));
            recorder.take(&ack, &Latency::new());
            recorder.add(now(second, 10 * second * second, 0));
        }
        assert!(!recorder.is_due(5_000_000) && recorder.is_due(6_000_000));
        let points = recorder.into_points();
        let sent: Vec<f64> = points.iter().map(|point| point.sent_per_s).collect();
        assert!(close(sent[0], 20.0) && close(sent[1], 60.0), "{sent:?}");
        assert!(close(points[0].at_s, 2.0) && close(points[1].at_s, 4.0));
        assert_eq!(points.iter().map(|p| p.disconnected).sum::<u64>(), 4);
        assert!(
            (4.9..5.1).contains(&points[0].ack_ms.max),
            "the first point has what came before it"
        );
    }
}
