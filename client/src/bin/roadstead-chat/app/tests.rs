//! The chat driven by records, events and keys.

use super::*;

pub(crate) fn position(n: u16) -> Position {
    Position::new(1, [0; 10], n)
}

fn user(id: u64) -> UserId {
    UserId::new(id).expect("not 0")
}

fn app() -> App {
    App::new(user(1), user(2), DeviceId::new(5).expect("not 0"))
}

fn message(sender: u64, n: u16, text: &str) -> Record {
    Record::Message {
        id: MessageId::new(n.into()),
        sender: user(sender),
        device: DeviceId::new(6).expect("not 0"),
        number: n.into(),
        position: position(n),
        text: text.into(),
    }
}

fn press(app: &mut App, code: KeyCode) -> Vec<Effect> {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    app.handle_terminal(&Terminal::Key(key), Instant::now())
}

fn type_text(app: &mut App, text: &str) {
    for c in text.chars() {
        press(app, KeyCode::Char(c));
    }
}

fn texts(app: &App) -> Vec<&str> {
    app.lines().iter().map(|line| line.text.as_str()).collect()
}

fn sent(app: &mut App, number: u64, text: &str) {
    let text = text.into();
    app.restore(Record::Sent { number, text });
}

#[test]
fn p21_messages_stand_in_the_order_of_positions() {
    let mut app = app();
    sent(&mut app, 1, "mine");
    app.restore(message(2, 7, "later"));
    app.restore(message(2, 3, "earlier"));
    assert_eq!(texts(&app), ["earlier", "later", "mine"]);
    app.restore(Record::Confirmed {
        number: 1,
        position: position(5),
    });
    assert_eq!(texts(&app), ["earlier", "mine", "later"]);
}

/// The server's store was restored, and the sender repeated what it held unconfirmed.
#[test]
fn r3_a_message_under_another_id_and_position_is_the_same() {
    let mut app = app();
    app.restore(message(2, 3, "hello"));
    app.restore(message(2, 4, "again"));
    let moved = |number: u64, text: &str| Record::Message {
        id: MessageId::new(1_000 + number),
        sender: user(2),
        device: DeviceId::new(6).expect("not 0"),
        number,
        position: Position::new(2, [0; 10], 1),
        text: text.into(),
    };
    app.restore(moved(3, "hello"));
    assert_eq!(texts(&app), ["again", "hello"], "it stands elsewhere now");
    app.restore(moved(4, "something else"));
    assert_eq!(app.lines().len(), 3, "that number was used twice");
}

#[test]
fn ticks_turn_from_one_to_two_to_read() {
    let mut app = app();
    let ticks = |app: &App| app.ticks(&app.lines()[0]);
    sent(&mut app, 1, "hello");
    assert_eq!(ticks(&app), Ticks::Waiting);
    app.restore(Record::Confirmed {
        number: 1,
        position: position(5),
    });
    assert_eq!(ticks(&app), Ticks::Sent);
    let receipt = |delivered, read| Record::Receipt {
        user: user(2),
        delivered,
        read,
    };
    app.restore(receipt(position(4), Position::ZERO));
    assert_eq!(ticks(&app), Ticks::Sent);
    app.restore(receipt(position(5), Position::ZERO));
    assert_eq!(ticks(&app), Ticks::Delivered);
    app.restore(receipt(Position::ZERO, position(6)));
    assert_eq!(ticks(&app), Ticks::Read);
    app.restore(receipt(position(1), position(1)));
    assert_eq!(ticks(&app), Ticks::Read, "receipts only grow");
}

#[test]
fn a_failure_is_shown() {
    let mut app = app();
    sent(&mut app, 1, "hello");
    let why = "nobody has that id".into();
    app.restore(Record::Failed { number: 1, why });
    assert_eq!(app.ticks(&app.lines()[0]), Ticks::Failed);
}

fn control(app: &mut App, c: char) -> Vec<Effect> {
    let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    app.handle_terminal(&Terminal::Key(key), Instant::now())
}

#[test]
fn df1_p113_the_last_message_that_is_not_answered_can_be_taken_back() {
    let mut app = app();
    assert!(control(&mut app, 'z').is_empty(), "there is none");
    for number in 1..=3 {
        sent(&mut app, number, "hello");
    }
    app.restore(Record::Confirmed {
        number: 3,
        position: position(5),
    });
    assert_eq!(control(&mut app, 'z'), [Effect::TakeBack(2)]);
    let why = "the message was taken back".to_owned();
    app.restore(Record::Failed { number: 2, why });
    assert_eq!(control(&mut app, 'z'), [Effect::TakeBack(1)]);
}

#[test]
fn df1_p112_why_a_message_waits_is_shown_until_it_is_answered() {
    let mut app = app();
    sent(&mut app, 1, "hello");
    let mut delay = SendDelay {
        number: 1,
        chat: app.chat(),
        code: ErrorCode::RecipientFull,
        retry_in: Duration::from_secs(30),
    };
    app.handle_event(&Event::SendDelayed(delay), Instant::now());
    let why = Some("waiting: recipient has no room");
    assert_eq!(app.lines()[0].delay, why);
    delay.chat = ChatId::pair(user(1), user(3));
    delay.code = ErrorCode::ChatBusy;
    app.handle_event(&Event::SendDelayed(delay), Instant::now());
    assert_eq!(app.lines()[0].delay, why, "that was another chat");
    app.restore(Record::Confirmed {
        number: 1,
        position: position(5),
    });
    assert_eq!(app.lines()[0].delay, None);
    // It went under another number, and comes back as an entry.
    app.restore(Record::Message {
        id: MessageId::new(9),
        sender: user(1),
        device: DeviceId::new(5).expect("not 0"),
        number: 8,
        position: position(5),
        text: "hello".into(),
    });
    assert_eq!(texts(&app), ["hello"]);
}

#[test]
fn df1_p112_what_finds_no_room_stands_in_the_line_again() {
    let mut app = app();
    type_text(&mut app, "hello");
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        [Effect::Send("hello".into())]
    );
    app.put_back("hello".into());
    press(&mut app, KeyCode::Backspace);
    assert_eq!(app.input, "hell");
    app.put_back("something else was typed meanwhile".into());
    assert_eq!(app.input, "hell");
}

#[test]
fn p22_a_repeat_changes_nothing() {
    let mut app = app();
    for _ in 0..2 {
        app.restore(message(2, 3, "once"));
    }
    assert_eq!(texts(&app), ["once"]);
}

#[test]
fn an_answer_that_outlived_its_message_is_shown() {
    let mut app = app();
    app.restore(Record::Confirmed {
        number: 4,
        position: position(1),
    });
    assert_eq!(app.lines().len(), 1);
    assert_eq!(app.ticks(&app.lines()[0]), Ticks::Sent);
}

#[test]
fn what_is_looked_at_is_marked_read_once() {
    let mut app = app();
    app.restore(message(2, 3, "hi"));
    assert_eq!(app.read_mark(), [Effect::Read(position(3))]);
    assert!(app.read_mark().is_empty());
    app.handle_terminal(&Terminal::FocusLost, Instant::now());
    app.restore(message(2, 4, "are you there?"));
    assert!(app.read_mark().is_empty(), "nobody looks");
    let back = app.handle_terminal(&Terminal::FocusGained, Instant::now());
    assert_eq!(back, [Effect::Read(position(4))]);
}

#[test]
fn what_a_sibling_device_read_is_not_marked_again() {
    let mut app = app();
    app.restore(Record::Receipt {
        user: user(1),
        delivered: Position::ZERO,
        read: position(3),
    });
    app.restore(message(2, 3, "hi"));
    assert!(app.read_mark().is_empty());
}

#[test]
fn enter_sends_what_was_typed() {
    let mut app = app();
    assert!(
        press(&mut app, KeyCode::Enter).is_empty(),
        "nothing is typed"
    );
    type_text(&mut app, " grüße ");
    press(&mut app, KeyCode::Left);
    press(&mut app, KeyCode::Left);
    press(&mut app, KeyCode::Backspace);
    type_text(&mut app, "ß");
    press(&mut app, KeyCode::Home);
    press(&mut app, KeyCode::Delete);
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        [Effect::Send("grüße".into())]
    );
    assert!(app.input.is_empty());
}

#[test]
fn p51_typing_is_told_now_and_then() {
    let mut app = app();
    let start = Instant::now();
    let key = Terminal::Key(KeyEvent::new(KeyCode::Char('x'), KeyModifiers::NONE));
    assert_eq!(app.handle_terminal(&key, start), [Effect::Typing]);
    let soon = start + Duration::from_secs(1);
    assert!(app.handle_terminal(&key, soon).is_empty());
    let later = start + TYPING_EVERY;
    assert_eq!(app.handle_terminal(&key, later), [Effect::Typing]);
}

#[test]
fn the_peers_typing_is_shown_for_a_while() {
    let mut app = app();
    let now = Instant::now();
    let chat = app.chat();
    let typing = Event::Typing {
        chat,
        user: user(2),
    };
    app.handle_event(&typing, now);
    assert!(app.is_peer_typing(now + Duration::from_secs(3)));
    assert!(!app.is_peer_typing(now + Duration::from_secs(5)));
}

#[test]
fn input_has_a_limit_and_no_control_characters() {
    let mut app = app();
    let paste = Terminal::Paste(format!("a\x1b\n{}", "x".repeat(2 * INPUT_MAX)));
    app.handle_terminal(&paste, Instant::now());
    assert_eq!(app.input.chars().count(), INPUT_MAX);
    assert!(!app.input.chars().any(char::is_control));
}

#[test]
fn escape_and_control_c_leave() {
    let mut app = app();
    assert_eq!(press(&mut app, KeyCode::Esc), [Effect::Quit]);
    let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    let effects = app.handle_terminal(&Terminal::Key(key), Instant::now());
    assert_eq!(effects, [Effect::Quit]);
}

#[test]
fn df8_r19_a_third_user_is_kept_and_shown_when_asked_for() {
    let mut app = app();
    app.restore(message(2, 1, "of 2"));
    let third = ChatId::pair(user(1), user(3));
    app.restore_in(Some(third), message(3, 2, "of 3"));
    app.restore_in(None, message(3, 3, "of 3, an old record"));
    assert_eq!(texts(&app), ["of 2"]);
    type_text(&mut app, "/to 3");
    let effects = press(&mut app, KeyCode::Enter);
    assert_eq!(effects, [Effect::Read(position(3))]);
    assert_eq!(texts(&app), ["of 3", "of 3, an old record"]);
    assert_eq!(app.chat(), third);
    for wrong in ["/to 1", "/to 0", "/to x"] {
        type_text(&mut app, wrong);
        assert_eq!(press(&mut app, KeyCode::Enter), []);
        assert_eq!(app.chat(), third);
    }
    type_text(&mut app, "/to 2");
    press(&mut app, KeyCode::Enter);
    assert_eq!(texts(&app), ["of 2"]);
}

#[test]
fn fd5_a_paste_of_lines_is_one_message_and_nothing_is_sent_before_enter() {
    let mut app = app();
    type_text(&mut app, "<>");
    press(&mut app, KeyCode::Left);
    let paste = Terminal::Paste("alpha\rbeta\r\ngamma\tdelta".into());
    assert_eq!(app.handle_terminal(&paste, Instant::now()), []);
    let sent = press(&mut app, KeyCode::Enter);
    assert_eq!(sent, [Effect::Send("<alpha beta gamma delta>".into())]);
    let paste = Terminal::Paste("x".repeat(100_000));
    app.handle_terminal(&paste, Instant::now());
    assert_eq!(app.input.len(), INPUT_MAX);
}
