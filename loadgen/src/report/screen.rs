//! A run on a terminal: a view that refreshes itself below what was written before.

use std::collections::VecDeque;
use std::io::{self, Stderr};

use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::text::Line;
use ratatui::widgets::{Gauge, Paragraph, Sparkline, Widget};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

/// Lines of the view, without those of agents; the last is free.
const HEIGHT: usize = 11;

/// Points of a sparkline: more than a terminal is wide.
const HISTORY: usize = 400;

/// The view and what it remembers.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    history: History,
}

/// What the sparklines show.
#[derive(Debug, Default)]
pub(super) struct History {
    /// 99th percentile of the delivery, in microseconds.
    deliver: VecDeque<u64>,
    /// Memory of the server, in bytes.
    memory: VecDeque<u64>,
}

/// A run at one moment, in words.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) title: String,
    /// Of the sessions, from 0 to 1.
    pub(super) done: f64,
    pub(super) sessions: String,
    pub(super) messages: String,
    pub(super) ack: String,
    pub(super) deliver: String,
    pub(super) server: String,
    pub(super) generator: String,
    /// A row for each machine of a run on many.
    pub(super) agents: Vec<String>,
    /// How much of its time the generator works, from 0 to 1.
    pub(super) saturation: f64,
    pub(super) deliver_us: u64,
    pub(super) memory: u64,
}

impl Screen {
    /// The view below the cursor, with so many rows for agents; `None` where there is no terminal for it.
    pub(super) fn open(agents: usize) -> Option<Self> {
        let backend = CrosstermBackend::new(io::stderr());
        let viewport = Viewport::Inline(u16::try_from(HEIGHT + agents).ok()?);
        let terminal = Terminal::with_options(backend, TerminalOptions { viewport });
        Some(Self {
            terminal: terminal.ok()?,
            history: History::default(),
        })
    }

    /// Shows a moment. A terminal that went away is no reason to fail.
    pub(super) fn show(&mut self, view: &View) {
        self.history.take(view);
        let history = &self.history;
        let _ = self.terminal.draw(|frame| draw(frame, view, history));
    }
}

impl Screen {
    /// Leaves the view as it is, and the cursor below it.
    pub(super) fn close(mut self) {
        let below = self.terminal.get_frame().area().bottom().saturating_sub(1);
        let _ = self.terminal.set_cursor_position((0, below));
        let _ = self.terminal.show_cursor();
    }

    /// Writes a line above the view.
    pub(super) fn say(&mut self, text: &str) {
        let line = Paragraph::new(text.to_owned());
        let _ = self
            .terminal
            .insert_before(1, |buffer| line.render(buffer.area, buffer));
    }
}

impl History {
    fn take(&mut self, view: &View) {
        push(&mut self.deliver, view.deliver_us);
        push(&mut self.memory, view.memory);
    }
}

fn push(values: &mut VecDeque<u64>, value: u64) {
    if values.len() == HISTORY {
        values.pop_front();
    }
    values.push_back(value);
}

fn draw(frame: &mut Frame<'_>, view: &View, history: &History) {
    let lines = vec![Constraint::Length(1); HEIGHT + view.agents.len()];
    let rows = Layout::vertical(lines).split(frame.area());
    let mut rows = rows.iter().copied();
    let mut row = || rows.next().expect("a line for each");
    let bar = |ratio: f64, label: &str, color| {
        Gauge::default()
            .ratio(ratio.clamp(0.0, 1.0))
            .label(label.to_owned())
            .gauge_style(Style::default().fg(color).bg(Color::DarkGray))
    };
    let text = |name: &str, value: &str| Paragraph::new(Line::from(format!("{name:<11}{value}")));
    frame.render_widget(bar(view.done, &view.title, Color::Blue), row());
    frame.render_widget(text("sessions", &view.sessions), row());
    frame.render_widget(text("messages", &view.messages), row());
    frame.render_widget(text("ack", &view.ack), row());
    frame.render_widget(text("deliver", &view.deliver), row());
    spark(frame, row(), &history.deliver, "  p99", Color::Yellow);
    frame.render_widget(text("edge", &view.server), row());
    spark(frame, row(), &history.memory, "  memory", Color::Green);
    frame.render_widget(text("loadgen", &view.generator), row());
    for agent in &view.agents {
        frame.render_widget(text("  agent", agent), row());
    }
    let color = match view.saturation {
        busy if busy > 0.85 => Color::Red,
        busy if busy > 0.6 => Color::Yellow,
        _ => Color::Green,
    };
    let whose = match view.agents.is_empty() {
        true => "generator",
        false => "busiest agent",
    };
    let label = format!("{whose} busy {:.0} %", view.saturation * 100.0);
    frame.render_widget(bar(view.saturation, &label, color), row());
}

fn spark(
    frame: &mut Frame<'_>,
    row: ratatui::layout::Rect,
    values: &VecDeque<u64>,
    name: &str,
    color: Color,
) {
    let [label, line] = Layout::horizontal([Constraint::Length(11), Constraint::Min(1)]).areas(row);
    frame.render_widget(Paragraph::new(name.to_owned()), label);
    // The newest that fit.
    let from = values.len().saturating_sub(line.width.into());
    let shown: Vec<u64> = values.iter().skip(from).copied().collect();
    frame.render_widget(
        Sparkline::default()
            .data(shown)
            .style(Style::default().fg(color)),
        line,
    );
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn the_view_shows_numbers_and_courses() {
        let mut history = History::default();
        let mut view = View {
            title: "exchange 12 s".into(),
            done: 0.5,
            sessions: "5 of 10".into(),
            deliver: "p99 3.00 ms".into(),
            agents: vec!["10.0.0.2:7433 hold".into()],
            saturation: 0.9,
            ..View::default()
        };
        for us in [100, 800, 400] {
            view.deliver_us = us;
            history.take(&view);
        }
        let mut terminal = Terminal::new(TestBackend::new(70, 12)).expect("a screen");
        let drawn = terminal.draw(|frame| draw(frame, &view, &history));
        let buffer = drawn.expect("drawn").buffer.clone();
        let text: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
        for wanted in [
            "exchange 12 s",
            "5 of 10",
            "p99 3.00 ms",
            "agent    10.0.0.2:7433 hold",
            "busiest agent busy 90 %",
            "▁█▄",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }

    #[test]
    fn the_past_is_bounded() {
        let mut history = History::default();
        (0..1_000).for_each(|_| history.take(&View::default()));
        assert_eq!(history.deliver.len(), HISTORY);
    }
}
