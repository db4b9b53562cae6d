//! The chat as the user sees it: a pure structure. Events and keys go in, effects come out.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{Event as Terminal, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use roadstead_client::{
    ChatId, DeviceId, ErrorCode, Event, GapReason, MessageId, Position, SendDelay, UserId,
};

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
    /// The message of this number is not to be sent.
    TakeBack(u64),
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
    /// The device that sent it, unless it is this one.
    sender: Option<(UserId, DeviceId)>,
    /// The number that its device gave it.
    number: u64,
    pub(crate) mine: bool,
    /// `None` until it is committed: then it stands at the end.
    position: Option<Position>,
    pub(crate) failure: Option<String>,
    /// Why it waits, if its chat takes none at the moment.
    pub(crate) delay: Option<&'static str>,
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

/// What is known of one chat.
#[derive(Debug, Default)]
struct Talk {
    lines: Vec<Line>,
    delivered: Position,
    read: Position,
    /// The last read mark that was made.
    marked: Position,
}

/// The whole screen.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) user: UserId,
    pub(crate) peer: UserId,
    device: DeviceId,
    /// The chat on the screen.
    talk: Talk,
    /// The others.
    elsewhere: BTreeMap<ChatId, Talk>,
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
            talk: Talk::default(),
            elsewhere: BTreeMap::new(),
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
        &self.talk.lines
    }

    pub(crate) fn ticks(&self, line: &Line) -> Ticks {
        match line.position {
            _ if !line.mine => Ticks::None,
            _ if line.failure.is_some() => Ticks::Failed,
            None => Ticks::Waiting,
            Some(position) if position <= self.talk.read => Ticks::Read,
            Some(position) if position <= self.talk.delivered => Ticks::Delivered,
            Some(_) => Ticks::Sent,
        }
    }

    pub(crate) fn is_peer_typing(&self, now: Instant) -> bool {
        self.typing_until.is_some_and(|until| now < until)
    }

    pub(crate) fn notice(&mut self, notice: String) {
        self.notice = Some(notice);
    }

    /// Takes a record of a chat into account, whichever is on the screen. One without a chat is of an older
    /// version: it is of its sender's chat, or of the one on the screen.
    pub(crate) fn restore_in(&mut self, chat: Option<ChatId>, record: Record) {
        let chat = chat.unwrap_or_else(|| match &record {
            Record::Message { sender, .. } if *sender != self.user => {
                ChatId::pair(self.user, *sender)
            }
            _ => self.chat(),
        });
        let (shown, shown_peer) = (self.chat(), self.peer);
        let Some(peer) = chat.peer_of(self.user) else {
            return;
        };
        if chat == shown {
            return self.restore(record);
        }
        self.swap(peer);
        self.restore(record);
        self.swap(shown_peer);
    }

    /// Puts the chat with another user in the place of the one that is there.
    fn swap(&mut self, peer: UserId) {
        let left = self.chat();
        self.peer = peer;
        let talk = self.elsewhere.remove(&self.chat()).unwrap_or_default();
        let left_talk = std::mem::replace(&mut self.talk, talk);
        self.elsewhere.insert(left, left_talk);
    }

    /// Shows the chat with another user.
    fn go_to(&mut self, word: &str) -> Vec<Effect> {
        let peer = word.trim().parse().ok().and_then(|id| UserId::new(id).ok());
        let Some(peer) = peer.filter(|peer| *peer != self.user) else {
            self.notice = Some("/to takes the id of another user, for example /to 3".into());
            return Vec::new();
        };
        if peer != self.peer {
            self.swap(peer);
            (self.typing_until, self.notice) = (None, None);
        }
        self.read_mark()
    }

    /// Takes a record of the chat on the screen, old or new, into account. A record that comes twice changes
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
                let sent_by = (!own).then_some((sender, device));
                // Under another id if the server's store was restored (R3), and under another number if it was
                // refused for a while before.
                let same = |line: &Line| {
                    let same_number = line.number == number && (own || line.text == text);
                    let same_place = own && line.position == Some(position);
                    line.sender == sent_by && (same_number || same_place)
                };
                let known = |line: &Line| line.id == Some(id) || same(line);
                if let Some(line) = self.talk.lines.iter_mut().find(|line| known(line)) {
                    line.position = Some(position);
                    line.id = Some(id);
                } else {
                    self.talk.lines.push(Line {
                        id: Some(id),
                        sender: sent_by,
                        number,
                        mine: sender == self.user,
                        position: Some(position),
                        failure: None,
                        delay: None,
                        text,
                    });
                }
            }
            Record::Sent { number, text } => match self.own(number) {
                Some(line) => line.text = text,
                None => self.talk.lines.push(Line::sent(number, text)),
            },
            Record::Confirmed { number, position } => {
                let line = self.own_or_lost(number);
                (line.position, line.delay) = (Some(position), None);
            }
            Record::Failed { number, why } => {
                let line = self.own_or_lost(number);
                (line.failure, line.delay) = (Some(why), None);
            }
            Record::Receipt {
                user,
                delivered,
                read,
            } if user == self.peer => {
                self.talk.delivered = self.talk.delivered.max(delivered).max(read);
                self.talk.read = self.talk.read.max(read);
            }
            // Another of the own devices has read.
            Record::Receipt { read, .. } => self.talk.marked = self.talk.marked.max(read),
        }
        // By position; what has none stays at the end, in the order in which it was written.
        self.talk
            .lines
            .sort_by_key(|line| line.position.unwrap_or(Position::MAX));
    }

    fn own(&mut self, number: u64) -> Option<&mut Line> {
        let mut lines = self.talk.lines.iter_mut();
        lines.find(|line| line.sender.is_none() && line.number == number)
    }

    /// The answer may be all that is left of a message, if a crash came before the history had it.
    fn own_or_lost(&mut self, number: u64) -> &mut Line {
        if self.own(number).is_none() {
            let text = "(sent before a restart)".to_owned();
            self.talk.lines.push(Line::sent(number, text));
        }
        self.own(number).expect("just made")
    }

    pub(crate) fn handle_event(&mut self, event: &Event, now: Instant) -> Vec<Effect> {
        if let Some((chat, record)) = Record::of(event) {
            let theirs = matches!(&record, Record::Message { sender, .. } if *sender == self.peer);
            if theirs && chat == self.chat() {
                self.typing_until = None;
            }
            self.restore_in(Some(chat), record);
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
            Event::SendDelayed(delay) if delay.chat == self.chat() => self.delay(*delay),
            Event::Message(message) if message.chat != self.chat() => {
                self.notice = Some(match message.chat.peer_of(self.user) {
                    Some(peer) => format!("user {} wrote: /to {peer} shows it", message.sender),
                    None => format!("user {} wrote in a group: it is kept", message.sender),
                });
            }
            Event::Gap(gap) => {
                self.notice = Some(match gap.reason {
                    GapReason::InboxLimit => "too much waited: some messages are missing".into(),
                    GapReason::Expired => "some messages were too old and are missing".into(),
                    _ => "some messages are missing".into(),
                });
            }
            _ => {}
        }
        self.read_mark()
    }

    fn delay(&mut self, delay: SendDelay) {
        let why = match delay.code {
            ErrorCode::RecipientFull => "waiting: recipient has no room",
            ErrorCode::ChatBusy => "waiting: too much at once",
            _ => "waiting",
        };
        if let Some(line) = self.own(delay.number) {
            line.delay = Some(why);
        }
    }

    /// The last message that is not answered: it may still be taken back.
    pub(crate) fn last_waiting(&self) -> Option<u64> {
        let mut own = self
            .talk
            .lines
            .iter()
            .rev()
            .filter(|line| line.sender.is_none());
        let waiting = own.find(|line| line.position.is_none() && line.failure.is_none())?;
        Some(waiting.number)
    }

    /// What could not be sent, for another try.
    pub(crate) fn put_back(&mut self, text: String) {
        if self.input.is_empty() {
            self.cursor = text.chars().count();
            self.input = text;
        }
    }

    /// What the user looks at is read.
    fn read_mark(&mut self) -> Vec<Effect> {
        let theirs = self.talk.lines.iter().filter(|line| !line.mine);
        let seen = theirs.filter_map(|line| line.position).max();
        match seen {
            Some(seen) if self.focused && seen > self.talk.marked => {
                self.talk.marked = seen;
                vec![Effect::Read(seen)]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn handle_terminal(&mut self, event: &Terminal, now: Instant) -> Vec<Effect> {
        match event {
            Terminal::Key(key) if key.kind != KeyEventKind::Release => self.handle_key(*key, now),
            Terminal::Paste(text) => {
                self.paste(text);
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
            KeyCode::Char('z') if control => {
                return self
                    .last_waiting()
                    .map(Effect::TakeBack)
                    .into_iter()
                    .collect();
            }
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
        match text.strip_prefix("/to ") {
            Some(word) => self.go_to(word),
            None => vec![Effect::Send(text)],
        }
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

    /// Puts a text in at the cursor, at once. Its lines become words of one line: nothing is sent before
    /// Enter (D5).
    fn paste(&mut self, text: &str) {
        let room = INPUT_MAX.saturating_sub(self.input.chars().count());
        let text = text.replace("\r\n", "\n");
        let lines_as_words = text.chars().map(|c| match c {
            '\r' | '\n' | '\t' => ' ',
            other => other,
        });
        let shown = lines_as_words.filter(|c| !c.is_control());
        let pasted: String = shown.take(room).collect();
        self.input.insert_str(self.byte_index(), &pasted);
        self.cursor += pasted.chars().count();
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
            sender: None,
            number,
            mine: true,
            position: None,
            failure: None,
            delay: None,
            text,
        }
    }
}
