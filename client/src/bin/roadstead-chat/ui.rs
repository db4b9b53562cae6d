//! Draws the chat. Reads the state, changes nothing.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use crate::app::{self, App, Connection, Ticks};

/// A message takes at most this share of the width, in tenths, so that both sides are told apart.
const MESSAGE_WIDTH_TENTHS: usize = 8;

pub(crate) fn render(frame: &mut Frame<'_>, app: &App, now: Instant) {
    let [title, messages, status, input] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(3),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(title_line(app)), title);
    render_messages(frame, app, messages);
    frame.render_widget(Paragraph::new(status_line(app, now)), status);
    render_input(frame, app, input);
}

fn title_line(app: &App) -> Line<'static> {
    let (sign, text, colour) = match &app.connection {
        Connection::Connecting => ("◌", "connecting".to_owned(), Color::Yellow),
        Connection::Connected => ("●", "connected".to_owned(), Color::Green),
        Connection::Lost(cause) => ("○", format!("{cause}; trying again"), Color::Yellow),
        Connection::Stopped(cause) => ("×", format!("stopped: {cause}"), Color::Red),
    };
    Line::from(vec![
        Span::styled(
            format!(" user {} ↔ user {}  ", app.user, app.peer),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::styled(format!("{sign} {text}"), Style::new().fg(colour)),
    ])
}

fn status_line(app: &App, now: Instant) -> Line<'static> {
    if app.is_peer_typing(now) {
        let text = format!(" user {} is typing…", app.peer);
        return Line::styled(text, Style::new().fg(Color::Cyan));
    }
    let keys = match app.last_waiting() {
        Some(_) => "Enter sends, Ctrl-Z takes back, Esc leaves",
        None => "Enter sends, Esc leaves",
    };
    let text = app.notice.as_deref().unwrap_or(keys);
    Line::styled(format!(" {text}"), Style::new().fg(Color::DarkGray))
}

fn render_messages(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let mut rows: Vec<Line<'_>> = Vec::new();
    // From the end, and no more than is seen: a long history costs nothing.
    for line in app.lines().iter().rev() {
        if rows.len() >= height + app.scroll {
            break;
        }
        rows.extend(message_rows(app, line, width).into_iter().rev());
    }
    let scroll = app.scroll.min(rows.len().saturating_sub(height));
    let mut seen: Vec<Line<'_>> = rows.into_iter().skip(scroll).take(height).collect();
    seen.reverse();
    let top = height - seen.len();
    let offset = u16::try_from(top).unwrap_or(0);
    let below = Rect {
        y: area.y + offset,
        height: area.height - offset,
        ..area
    };
    frame.render_widget(Paragraph::new(seen), below);
}

fn message_rows(app: &App, line: &app::Line, width: usize) -> Vec<Line<'static>> {
    let mut rows = wrap(&line.text, (width * MESSAGE_WIDTH_TENTHS / 10).max(1));
    if !line.mine {
        let style = Style::new().fg(Color::Green);
        let theirs = |row: String| Line::from(Span::styled(format!(" {row}"), style));
        return rows.into_iter().map(theirs).collect();
    }
    let last = rows.pop().unwrap_or_default();
    let mut lines: Vec<Line<'static>> = rows
        .into_iter()
        .map(|row| Line::from(format!("{row}    ")).right_aligned())
        .collect();
    lines.push(Line::from(vec![Span::raw(last), ticks(app.ticks(line))]).right_aligned());
    let failure = line.failure.as_deref().map(|why| (why, Color::Red));
    if let Some((why, colour)) = failure.or(line.delay.map(|why| (why, Color::Yellow))) {
        let style = Style::new().fg(colour);
        lines.push(Line::styled(format!("{} ", clean(why)), style).right_aligned());
    }
    lines
}

/// Four columns, so that texts end in one line.
fn ticks(ticks: Ticks) -> Span<'static> {
    let (sign, colour) = match ticks {
        Ticks::None => ("    ", Color::Reset),
        Ticks::Waiting => (" …  ", Color::DarkGray),
        Ticks::Sent => (" ✓  ", Color::Gray),
        Ticks::Delivered => (" ✓✓ ", Color::Gray),
        Ticks::Read => (" ✓✓ ", Color::Blue),
        Ticks::Failed => (" ✗  ", Color::Red),
    };
    Span::styled(sign, Style::new().fg(colour))
}

/// Another's text must not move the cursor or colour the screen.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// Breaks at spaces where it can, and anywhere where it must.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in clean(text).split_inclusive(' ') {
        let row = rows.last_mut().expect("one at least");
        if width_of(row) + width_of(word.trim_end()) <= width {
            row.push_str(word);
            continue;
        }
        if !row.is_empty() {
            rows.push(String::new());
        }
        for c in word.chars() {
            let row = rows.last_mut().expect("one at least");
            if !row.is_empty() && width_of(row) + width_of(&c.to_string()) > width {
                rows.push(String::new());
            }
            rows.last_mut().expect("one at least").push(c);
        }
    }
    rows
}

fn render_input(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let inner = usize::from(area.width.saturating_sub(2)).max(1);
    // The end of what stands before the cursor is in view.
    let before: Vec<char> = app.input.chars().take(app.cursor).collect();
    let hidden = first_shown(&before, inner);
    let shown: String = app.input.chars().skip(hidden).collect();
    let cursor = width_of(&before[hidden..].iter().collect::<String>());
    frame.render_widget(Paragraph::new(shown).block(Block::bordered()), area);
    let column = area.x + 1 + u16::try_from(cursor).unwrap_or(0);
    frame.set_cursor_position(Position::new(column, area.y + 1));
}

/// How many characters are out of view to the left, so that the rest is narrower than the box. Looks back
/// from the cursor, at each character once (D4).
fn first_shown(before: &[char], inner: usize) -> usize {
    let mut width = 0;
    let mut first = before.len();
    for (index, c) in before.iter().enumerate().rev() {
        width += width_of(c.encode_utf8(&mut [0; 4]));
        if width >= inner {
            break;
        }
        first = index;
    }
    first
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::Event as Input;
    use roadstead_client::{DeviceId, MessageId, UserId};

    use super::*;
    use crate::history::Record;

    fn user(id: u64) -> UserId {
        UserId::new(id).expect("not 0")
    }

    fn position(n: u16) -> roadstead_client::Position {
        roadstead_client::Position::new(1, [0; 10], n)
    }

    fn app() -> App {
        App::new(user(1), user(2), DeviceId::new(5).expect("not 0"))
    }

    fn screen(app: &App, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
        terminal
            .draw(|frame| render(frame, app, Instant::now()))
            .expect("draws");
        terminal
    }

    fn rows(terminal: &Terminal<TestBackend>) -> Vec<String> {
        let buffer = terminal.backend().buffer();
        let row = |y| {
            (0..buffer.area.width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
                .trim_end()
                .to_owned()
        };
        (0..buffer.area.height).map(row).collect()
    }

    fn their_message(n: u16, text: &str) -> Record {
        Record::Message {
            id: MessageId::new(n.into()),
            sender: user(2),
            device: DeviceId::new(6).expect("not 0"),
            number: n.into(),
            position: position(n),
            text: text.into(),
        }
    }

    fn talk() -> App {
        let mut app = app();
        for (number, text) in [(1, "seen"), (2, "there"), (3, "kept"), (4, "on its way")] {
            let text = text.into();
            app.restore(Record::Sent { number, text });
        }
        for number in 1..=3u16 {
            app.restore(Record::Confirmed {
                number: number.into(),
                position: position(10 * number),
            });
        }
        app.restore(Record::Receipt {
            user: user(2),
            delivered: position(20),
            read: position(10),
        });
        app.restore(their_message(15, "hello"));
        app
    }

    #[test]
    fn a_talk_with_every_tick() {
        let terminal = screen(&talk(), 30, 10);
        assert_eq!(
            rows(&terminal),
            [
                " user 1 ↔ user 2  ◌ connecting",
                "                      seen ✓✓",
                " hello",
                "                     there ✓✓",
                "                      kept ✓",
                "                on its way …",
                " Enter sends, Ctrl-Z takes bac",
                "┌────────────────────────────┐",
                "│                            │",
                "└────────────────────────────┘",
            ]
        );
        let colour = |y| terminal.backend().buffer()[(27, y)].fg;
        assert_eq!((colour(1), colour(3)), (Color::Blue, Color::Gray));
    }

    #[test]
    fn long_texts_are_wrapped_and_the_end_is_in_view() {
        let mut app = app();
        app.restore(their_message(1, "first"));
        app.restore(their_message(2, &"word ".repeat(30)));
        let rows = rows(&screen(&app, 20, 10));
        assert!(rows.iter().all(|row| row.chars().count() <= 20));
        assert!(!rows.iter().any(|row| row.contains("first")));
        assert_eq!(rows[5], " word word word");
        app.scroll = 1_000;
        assert_eq!(super::tests::rows(&screen(&app, 20, 10))[1], " first");
    }

    #[test]
    fn a_peers_control_characters_do_nothing() {
        let mut app = app();
        app.restore(their_message(1, "\x1b[31mred\r\nalert"));
        let rows = rows(&screen(&app, 40, 8));
        assert_eq!(rows[3], "  [31mred  alert");
    }

    #[test]
    fn typing_and_failures_are_shown() {
        let mut app = talk();
        let chat = app.chat();
        let typing = roadstead_client::Event::Typing {
            chat,
            user: user(2),
        };
        app.handle_event(&typing, Instant::now());
        app.restore(Record::Failed {
            number: 4,
            why: "nobody has that id".into(),
        });
        let rows = rows(&screen(&app, 30, 12));
        assert_eq!(rows[8], " user 2 is typing…");
        assert!(rows[6].ends_with('✗') && rows[7].ends_with("nobody has that id"));
    }

    #[test]
    fn df1_p112_a_message_that_waits_says_why_and_how_to_take_it_back() {
        let mut app = talk();
        let delay = roadstead_client::SendDelay {
            number: 4,
            chat: app.chat(),
            code: roadstead_client::ErrorCode::RecipientFull,
            retry_in: std::time::Duration::from_secs(30),
        };
        app.handle_event(&roadstead_client::Event::SendDelayed(delay), Instant::now());
        let rows = rows(&screen(&app, 50, 12));
        assert!(rows[6].ends_with("on its way …"), "{rows:?}");
        assert!(rows[7].ends_with("waiting: recipient has no room"));
        assert_eq!(rows[8], " Enter sends, Ctrl-Z takes back, Esc leaves");
    }

    #[test]
    fn the_end_of_a_long_input_is_in_view() {
        let mut app = app();
        app.handle_terminal(&Input::Paste("0123456789abcdef".into()), Instant::now());
        let mut terminal = screen(&app, 12, 6);
        assert_eq!(rows(&terminal)[4], "│789abcdef │");
        terminal
            .backend_mut()
            .assert_cursor_position(Position::new(10, 4));
    }

    #[test]
    fn fd4_the_shown_end_is_the_longest_that_fits() {
        let text: Vec<char> = "ab漢字c\u{301}d語".chars().cycle().take(60).collect();
        let width = |from: usize| width_of(&text[from..].iter().collect::<String>());
        for inner in 1..60 {
            let first = first_shown(&text, inner);
            assert!(width(first) < inner, "{inner}");
            assert!(first == 0 || width(first - 1) >= inner, "{inner}");
        }
    }

    #[test]
    fn no_screen_is_too_small() {
        for width in 1..12 {
            for height in 1..8 {
                screen(&talk(), width, height);
            }
        }
    }
}
