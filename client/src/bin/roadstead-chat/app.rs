//! The chat as the user sees it: a pure structure. Events and keys go in, effects come out.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{Event as Terminal, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use roadstead_client::{ChatId, DeviceId, Event, GapReason, MessageId, Position, UserId};

use crate::history::Record;

/// How long somebody counts as typing after the last sign of it.
const TYPING_SHOWN: Duration = Duration::from_secs(4);
/// How often typing is told at most (P51).
const TYPING_EVERY: Duration = Duration::from_secs(2);
/// Characters of one message.
const INPUT_MAX: usize = 4_000;

/// What the user wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Send(String),
    Read(Position),
    Typing,
    Quit,
}

/// What a message's ticks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ticks {
    /// Of the other user: no ticks.
    None,
    /// Not answered yet.
    Waiting,
    /// Committed.
    Sent,
    /// On a device of the other user.
    Delivered,
    /// Seen by the other user.
    Read,
    /// Given up.
    Failed,
}

/// A message on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    id: Option<MessageId>,
    /// The number, if this device sent it.
    number: Option<u64>,
    pub(crate) mine: bool,
    /// `None` until it is committed: then it stands at the end.
    position: Option<Position>,
    pub(crate) failure: Option<String>,
    pub(crate) text: String,
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Connection {
    Connecting,
    Connected,
    Lost(String),
    Stopped(String),
}

/// The whole screen.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) user: UserId,
    pub(crate) peer: UserId,
    device: DeviceId,
    lines: Vec<Line>,
    delivered: Position,
    read: Position,
    /// The last read mark that was made.
    marked: Position,
    pub(crate) input: String,
    /// In characters.
    pub(crate) cursor: usize,
    /// Rows scrolled up from the end.
    pub(crate) scroll: usize,
    pub(crate) connection: Connection,
    pub(crate) notice: Option<String>,
    typing_until: Option<Instant>,
    typing_told: Option<Instant>,
    focused: bool,
}

impl App {
    pub(crate) fn new(user: UserId, peer: UserId, device: DeviceId) -> Self {
        Self {
            user,
            peer,
            device,
            lines: Vec::new(),
            delivered: Position::ZERO,
            read: Position::ZERO,
            marked: Position::ZERO,
            input: String::new(),
            cursor: 0,
            scroll: 0,
            connection: Connection::Connecting,
            notice: None,
            typing_until: None,
            typing_told: None,
            focused: true,
        }
    }

    pub(crate) fn chat(&self) -> ChatId {
        ChatId::pair(self.user, self.peer)
    }

    /// Messages in the order of the chat.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(crate) fn ticks(&self, line: &Line) -> Ticks {
        match line.position {
            _ if !line.mine => Ticks::None,
            _ if line.failure.is_some() => Ticks::Failed,
            None => Ticks::Waiting,
            Some(position) if position <= self.read => Ticks::Read,
            Some(position) if position <= self.delivered => Ticks::Delivered,
            Some(_) => Ticks::Sent,
        }
    }

    pub(crate) fn is_peer_typing(&self, now: Instant) -> bool {
        self.typing_until.is_some_and(|until| now < until)
    }

    pub(crate) fn notice(&mut self, notice: String) {
        self.notice = Some(notice);
    }

    /// Takes a record of the history, old or new, into account. A record that comes twice changes
    /// nothing.
    pub(crate) fn restore(&mut self, record: Record) {
        match record {
            Record::Message {
                id,
                sender,
                device,
                number,
                position,
                text,
            } => {
                let own = sender == self.user && device == self.device;
                let known =
                    |line: &Line| line.id == Some(id) || (own && line.number == Some(number));
                if let Some(line) = self.lines.iter_mut().find(|line| known(line)) {
                    line.position = Some(position);
                    line.id = Some(id);
                } else {
                    self.lines.push(Line {
                        id: Some(id),
                        number: own.then_some(number),
                        mine: sender == self.user,
                        position: Some(position),
                        failure: None,
                        text,
                    });
                }
            }
            Record::Sent { number, text } => match self.own(number) {
                Some(line) => line.text = text,
                None => self.lines.push(Line::sent(number, text)),
            },
            Record::Confirmed { number, position } => {
                self.own_or_lost(number).position = Some(position);
            }
            Record::Failed { number, why } => self.own_or_lost(number).failure = Some(why),
            Record::Receipt {
                user,
                delivered,
                read,
            } if user == self.peer => {
                self.delivered = self.delivered.max(delivered).max(read);
                self.read = self.read.max(read);
            }
            // Another of the own devices has read.
            Record::Receipt { read, .. } => self.marked = self.marked.max(read),
        }
        // By position; what has none stays at the end, in the order in which it was written.
        self.lines
            .sort_by_key(|line| line.position.unwrap_or(Position::MAX));
    }

    fn own(&mut self, number: u64) -> Option<&mut Line> {
        let mut lines = self.lines.iter_mut();
        lines.find(|line| line.number == Some(number))
    }

    /// The answer may be all that is left of a message, if a crash came before the history had it.
    fn own_or_lost(&mut self, number: u64) -> &mut Line {
        if self.own(number).is_none() {
            let text = "(sent before a restart)".to_owned();
            self.lines.push(Line::sent(number, text));
        }
        self.own(number).expect("just made")
    }

    pub(crate) fn handle_event(&mut self, event: &Event, now: Instant) -> Vec<Effect> {
        if let Some(record) = Record::of(event, self.chat()) {
            if matches!(&record, Record::Message { sender, .. } if *sender == self.peer) {
                self.typing_until = None;
            }
            self.restore(record);
        }
        match event {
            Event::Connected(_) => {
                self.connection = Connection::Connected;
                self.notice = None;
            }
            Event::Disconnected(disconnected) => {
                let cause = disconnected.cause.to_string();
                self.connection = match disconnected.retry_in {
                    Some(_) => Connection::Lost(cause),
                    None => Connection::Stopped(cause),
                };
            }
            Event::Typing { chat, user } if *chat == self.chat() && *user == self.peer => {
                self.typing_until = Some(now + TYPING_SHOWN);
            }
            Event::Message(message) if message.chat != self.chat() => {
                self.notice = Some(format!("user {} wrote in another chat", message.sender));
            }
            Event::Gap(gap) => {
                self.notice = Some(match gap.reason {
                    GapReason::InboxLimit => "too much waited: some messages are missing".into(),
                    GapReason::Expired => "some messages were too old and are missing".into(),
                    _ => "some messages are missing".into(),
                });
            }
            Event::Refused { code, message } => {
                self.notice = Some(format!("refused: {code:?} {message}"));
            }
            _ => {}
        }
        self.read_mark()
    }

    /// What the user looks at is read.
    fn read_mark(&mut self) -> Vec<Effect> {
        let theirs = self.lines.iter().filter(|line| !line.mine);
        let seen = theirs.filter_map(|line| line.position).max();
        match seen {
            Some(seen) if self.focused && seen > self.marked => {
                self.marked = seen;
                vec![Effect::Read(seen)]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn handle_terminal(&mut self, event: &Terminal, now: Instant) -> Vec<Effect> {
        match event {
            Terminal::Key(key) if key.kind != KeyEventKind::Release => self.handle_key(*key, now),
            Terminal::Paste(text) => {
                text.chars().for_each(|c| self.insert(c));
                Vec::new()
            }
            Terminal::FocusLost => {
                self.focused = false;
                Vec::new()
            }
            Terminal::FocusGained => {
                self.focused = true;
                self.read_mark()
            }
            _ => Vec::new(),
        }
    }

    fn handle_key(&mut self, key: KeyEvent, now: Instant) -> Vec<Effect> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc => return vec![Effect::Quit],
            KeyCode::Char('c' | 'd') if control => return vec![Effect::Quit],
            KeyCode::Char('u') if control => self.clear(),
            KeyCode::Char(_) if control => {}
            KeyCode::Char(c) => {
                self.insert(c);
                return self.tell_typing(now);
            }
            KeyCode::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.input.remove(self.byte_index());
            }
            KeyCode::Delete if self.byte_index() < self.input.len() => {
                self.input.remove(self.byte_index());
            }
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.input.chars().count()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.input.chars().count(),
            KeyCode::Up => self.scroll += 1,
            KeyCode::Down => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageUp => self.scroll += 10,
            KeyCode::PageDown => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Enter => return self.submit(),
            _ => {}
        }
        Vec::new()
    }

    fn submit(&mut self) -> Vec<Effect> {
        let text = self.input.trim().to_owned();
        if text.is_empty() {
            return Vec::new();
        }
        self.clear();
        self.scroll = 0;
        self.typing_told = None;
        vec![Effect::Send(text)]
    }

    fn clear(&mut self) {
        self.input.clear();
        self.cursor = 0;
    }

    fn insert(&mut self, c: char) {
        if !c.is_control() && self.input.chars().count() < INPUT_MAX {
            self.input.insert(self.byte_index(), c);
            self.cursor += 1;
        }
    }

    fn byte_index(&self) -> usize {
        let mut indices = self.input.char_indices();
        indices
            .nth(self.cursor)
            .map_or(self.input.len(), |(index, _)| index)
    }

    fn tell_typing(&mut self, now: Instant) -> Vec<Effect> {
        if self
            .typing_told
            .is_some_and(|told| now < told + TYPING_EVERY)
        {
            return Vec::new();
        }
        self.typing_told = Some(now);
        vec![Effect::Typing]
    }
}

impl Line {
    fn sent(number: u64, text: String) -> Self {
        Self {
            id: None,
            number: Some(number),
            mine: true,
            position: None,
            failure: None,
            text,
        }
    }
}

#[cfg(test)]
mod tests {
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
}
