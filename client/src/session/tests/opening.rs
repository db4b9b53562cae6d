//! From the connection to the Welcome.

use super::*;

#[test]
fn p10_the_first_frame_is_a_hello_with_what_the_journal_holds() {
    let saved = Saved {
        connect_counter: 4,
        cursor: at(1, 9),
        ..new_device()
    };
    let mut rig = Rig::with(saved);
    let hello = rig.connect("jwt");
    assert_eq!(hello.version, 1);
    assert_eq!(
        hello.credential,
        Some(v1::hello::Credential::Token("jwt".into()))
    );
    assert_eq!(hello.device, 77);
    assert_eq!(hello.connect_counter, 5);
    assert_eq!(
        rig.saved.connect_counter, 5,
        "written down before it leaves"
    );
    assert_eq!(hello.cursor, bytes(at(1, 9)));
    assert!(rig.sent().is_empty(), "nothing before Welcome");
}

#[test]
fn p13_nothing_but_hello_is_sent_before_welcome() {
    let mut rig = Rig::new();
    rig.send("early");
    rig.connect("token");
    assert!(rig.sent().is_empty());
    rig.receive(Body::Welcome(welcome()));
    assert_eq!(numbers(&rig.sent()), [1]);
}

#[test]
fn welcome_teaches_the_home_the_heartbeat_and_the_limits() {
    let mut rig = Rig::active();
    assert!(rig.session.is_active());
    assert_eq!(
        rig.session.home(),
        Some(Home {
            bits: 0x4000,
            length: 2
        })
    );
    assert_eq!(rig.session.heartbeat().interval(), Duration::from_secs(120));
    let large = Bytes::from(vec![0; 1_001]);
    assert!(rig.session.send(rig.now, chat(), large).is_err());
    let connected = rig.take_events();
    assert!(matches!(connected.as_slice(), [Event::Connected(c)] if c.user.get() == ME));
}

#[test]
fn a_resume_token_takes_the_place_of_a_signed_one_until_it_is_refused() {
    let mut rig = Rig::active();
    rig.lose(Cause::TimedOut);
    rig.pass_to_timeout();
    let hello = rig.connect("unused");
    assert_eq!(
        hello.credential,
        Some(v1::hello::Credential::ResumeToken(Bytes::from_static(
            b"resume"
        )))
    );
    rig.lose(Cause::Closed(ErrorCode::TokenExpired));
    assert_eq!(rig.pass_to_timeout(), Duration::ZERO);
    let hello = rig.connect("jwt");
    assert_eq!(
        hello.credential,
        Some(v1::hello::Credential::Token("jwt".into()))
    );
    rig.lose(Cause::Closed(ErrorCode::TokenExpired));
    assert!(
        rig.pass_to_timeout() > Duration::ZERO,
        "a signed one was refused: no hurry"
    );
}

#[test]
fn df15_p14_a_user_who_is_signed_out_shows_a_signed_token_next() {
    let mut rig = Rig::active();
    rig.lose(Cause::Closed(ErrorCode::TokenExpired));
    assert!(rig.pass_to_timeout() > Duration::ZERO, "P47");
    let hello = rig.connect("jwt");
    assert_eq!(
        hello.credential,
        Some(v1::hello::Credential::Token("jwt".into()))
    );
}

#[test]
fn r13_a_device_without_a_journal_asks_for_its_numbers_first() {
    let mut rig = Rig::with(Saved::default());
    let too_early = rig.session.send(rig.now, chat(), Bytes::new());
    assert!(matches!(too_early, Err(ClientError::NumbersUnknown)));
    // The first attempt dies before its Welcome: the question stays open.
    rig.connect("token");
    let mut rig = Rig::with(rig.saved);
    let hello = rig.connect("token");
    assert_eq!(hello.capabilities, 1);
    rig.receive(Body::Welcome(v1::Welcome {
        highest_number: Some(41),
        ..welcome()
    }));
    // Known for good, even if the process dies now.
    assert!(rig.saved.numbers_known);
    assert_eq!(rig.send("next"), 42);
    assert_eq!(rig.saved.highest_number, 42);
}

/// Peer input: no sum of it may overflow.
#[test]
fn r13_a_server_that_leaves_no_number_is_left() {
    let mut rig = Rig::with(Saved::default());
    rig.connect("token");
    rig.receive(Body::Welcome(v1::Welcome {
        highest_number: Some(u64::MAX),
        ..welcome()
    }));
    assert!(!rig.session.is_active());
    assert!(!rig.saved.numbers_known);
}
