//! Conversations: who writes next, and when, as people do.
//!
//! A conversation has a few messages between two users, with a think time before each. All times are
//! drawn when it begins and depend on no answer, so a slow server changes nothing of what is sent when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Micros;
use crate::rng::Rng;

/// Messages of a conversation, on average.
pub(crate) const MESSAGES_MEAN: f64 = 6.0;

/// How often the same user writes again before the other one answers.
const SAME_AGAIN: f64 = 0.35;

/// Conversations under way.
#[derive(Debug, Default)]
pub(crate) struct Talks {
    due: BinaryHeap<Reverse<Line>>,
}

/// The next message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) at: Micros,
    /// The session that writes.
    pub(crate) from: u32,
    /// The session that is written to; it writes the next one, or the same again.
    pub(crate) to: u32,
    /// Messages after this one.
    left: u32,
}

impl Talks {
    /// Begins a conversation with a message that is due at once.
    pub(crate) fn begin(&mut self, at: Micros, from: u32, to: u32, rng: &mut Rng) {
        let left = length(rng) - 1;
        self.due.push(Reverse(Line { at, from, to, left }));
    }

    /// When the next message is due.
    pub(crate) fn due(&self) -> Option<Micros> {
        self.due.peek().map(|Reverse(line)| line.at)
    }

    /// Takes the next message whose time has come, and plans the one after it, `think` later on average.
    pub(crate) fn take(&mut self, now: Micros, think: Micros, rng: &mut Rng) -> Option<Line> {
        let at = self.due()?;
        if at > now {
            return None;
        }
        let Reverse(line) = self.due.pop()?;
        if line.left > 0 {
            let (from, to) = match rng.unit() < SAME_AGAIN {
                true => (line.from, line.to),
                false => (line.to, line.from),
            };
            self.due.push(Reverse(Line {
                at: line.at + rng.exponential(think),
                from,
                to,
                left: line.left - 1,
            }));
        }
        Some(line)
    }

    /// Ends all conversations.
    pub(crate) fn clear(&mut self) {
        self.due.clear();
    }
}

/// Geometric: after each message the conversation ends with the same chance.
fn length(rng: &mut Rng) -> u32 {
    let end = 1.0 / MESSAGES_MEAN;
    let length = (1.0 - rng.unit()).ln() / (1.0 - end).ln();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most some hundred"
    )]
    let whole = length.ceil() as u32;
    whole.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THINK: Micros = 4_000_000;

    #[test]
    fn conversations_have_their_mean_length_and_think_times() {
        let (mut talks, mut rng) = (Talks::default(), Rng::new(3));
        for talk in 0..2_000 {
            talks.begin(1_000, talk * 2, talk * 2 + 1, &mut rng);
        }
        let (mut lines, mut last, mut by) = (0u32, 0, [0u32; 2]);
        while let Some(line) = talks.take(Micros::MAX, THINK, &mut rng) {
            assert!(line.at >= last, "in order");
            assert_eq!(line.from / 2, line.to / 2, "both of one conversation");
            assert_ne!(line.from, line.to);
            by[(line.from % 2) as usize] += 1;
            last = line.at;
            lines += 1;
        }
        assert!((11_300..12_700).contains(&lines), "{lines}");
        assert!(by[1] > lines / 4, "both write: {by:?}");
        assert_eq!(talks.due(), None);
    }

    #[test]
    fn nothing_is_taken_before_its_time() {
        let (mut talks, mut rng) = (Talks::default(), Rng::new(1));
        talks.begin(500, 0, 1, &mut rng);
        assert_eq!(talks.take(499, THINK, &mut rng), None);
        assert_eq!(
            talks.take(500, THINK, &mut rng).map(|line| line.at),
            Some(500)
        );
        talks.clear();
        assert_eq!(talks.due(), None);
    }
}
