//! Every planted bug is noticed, by the rule that it breaks, within a bounded number of seeds.

use roadstead_sim::canary::Canary;
use roadstead_sim::explore::find;
use roadstead_sim::report::{describe, say};

/// Seeds in which each planted bug must show.
const SEEDS_MAX: u64 = 25;

fn assert_found(canary: Canary) {
    let Some(run) = find(canary, 1, SEEDS_MAX) else {
        panic!("canary {canary} sang in none of {SEEDS_MAX} seeds: the checker checks nothing");
    };
    say(&format!("canary {canary}: {}", describe(&run)));
}

macro_rules! canaries {
    ($($name:ident: $canary:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            assert_found(Canary::$canary);
        })*

        #[test]
        fn every_canary_has_a_test() {
            assert_eq!([$(Canary::$canary),*], Canary::ALL);
        }
    };
}

canaries! {
    r3_a_cursor_of_another_generation_counts: R3,
    r3_a_repeat_under_another_id_is_shown: R3Repeat,
    r4_a_hand_over_is_lost: R4,
    r5_a_session_reads_before_it_is_registered: R5,
    r8_an_answer_precedes_the_sync: R8,
    r9_stamps_restart: R9,
    r12_answers_are_forgotten: R12,
    r13_an_older_session_wins: R13,
    r14_a_new_device_is_not_seen: R14,
    r16_a_batch_goes_on_behind_a_failure: R16,
    r18_an_inbox_is_cleared_without_receipts: R18,
    r19_more_is_acknowledged_than_the_client_has: R19,
    r20_receipts_go_back: R20,
    r21_a_suspended_device_gets_entries: R21,
    r25_notes_are_lost: R25,
    r25_entries_go_too_early: R25Early,
    df17_r25_a_gap_that_is_due_is_not_told: R25Gap,
}
