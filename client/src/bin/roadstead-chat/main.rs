//! `roadstead-chat`: a terminal chat with one user at a time, on top of the SDK.

mod app;
mod history;
mod setup;
mod ui;

use std::io::{IsTerminal, stdin, stdout};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange,
};
use ratatui::crossterm::execute;
use roadstead_client::{Client, Events};
use tokio::sync::mpsc;

use app::{App, Effect};
use history::{History, Record};
use setup::{Arguments, Setup};

/// How often the screen is drawn again without a cause, so that "typing" goes away.
const TICK: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Before anything is written or read.
    ensure!(
        stdin().is_terminal() && stdout().is_terminal(),
        "roadstead-chat draws on a terminal, and there is none: start it in one, without pipes"
    );
    let setup = Setup::new(arguments)?;
    let (history, records) = History::open(setup.state.join("history"))?;
    let (client, events) = Client::connect(setup.config).await?;
    let mut app = App::new(setup.user, setup.peer, client.device());
    for (chat, record) in records {
        app.restore_in(chat, record);
    }
    let mut terminal = ratatui::init();
    // Terminals that do not know these ignore them; then the window counts as looked at, and the lines of
    // a paste are keys.
    let _ = execute!(stdout(), EnableFocusChange, EnableBracketedPaste);
    let chat = Chat {
        app,
        client: client.clone(),
        history,
    };
    let result = chat.run(&mut terminal, events).await;
    let _ = execute!(stdout(), DisableBracketedPaste, DisableFocusChange);
    ratatui::restore();
    client.shutdown().await;
    result
}

struct Chat {
    app: App,
    client: Client,
    history: History,
}

impl Chat {
    async fn run(
        mut self,
        terminal: &mut DefaultTerminal,
        mut events: Events,
    ) -> anyhow::Result<()> {
        let mut input = terminal_events();
        let mut tick = tokio::time::interval(TICK);
        loop {
            terminal.draw(|frame| ui::render(frame, &self.app, Instant::now()))?;
            let effects = tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.on_event(&event)?,
                    // The client has stopped; the screen says why until the user leaves.
                    None => wait_for_quit(&mut self.app, &mut input).await,
                },
                Some(event) = input.recv() => self.on_input(&event, &mut input),
                _ = tick.tick() => Vec::new(),
            };
            for effect in effects {
                if !self.carry_out(effect).await? {
                    return Ok(());
                }
            }
        }
    }

    /// Takes an input and those that wait behind it, so that there is one drawing for all of them (D4). An
    /// effect is carried out before the next input, which may be about another chat.
    fn on_input(
        &mut self,
        event: &event::Event,
        input: &mut mpsc::Receiver<event::Event>,
    ) -> Vec<Effect> {
        let mut effects = self.app.handle_terminal(event, Instant::now());
        while effects.is_empty()
            && let Ok(event) = input.try_recv()
        {
            effects = self.app.handle_terminal(&event, Instant::now());
        }
        effects
    }

    /// Store first, then acknowledge: what the history holds is never asked for again.
    fn on_event(&mut self, event: &roadstead_client::Event) -> anyhow::Result<Vec<Effect>> {
        if let Some((chat, record)) = Record::of(event) {
            self.history.append(chat, &record)?;
        }
        event.stored();
        Ok(self.app.handle_event(event, Instant::now()))
    }

    /// False when it is time to go.
    async fn carry_out(&mut self, effect: Effect) -> anyhow::Result<bool> {
        let chat = self.app.chat();
        match effect {
            Effect::Send(text) => match self.client.send(chat, text.clone()).await {
                Ok(number) => {
                    let record = Record::Sent { number, text };
                    self.history.append(chat, &record)?;
                    self.app.restore(record);
                }
                Err(error) => {
                    self.app.notice(error.to_string());
                    self.app.put_back(text);
                }
            },
            // An event says that it was.
            Effect::TakeBack(number) => {
                if let Ok(false) = self.client.take_back(number).await {
                    self.app.notice("it may have arrived already".into());
                }
            }
            // A client that has stopped says so by its events.
            Effect::Read(position) => drop(self.client.read(chat, position).await),
            Effect::Typing => drop(self.client.typing(chat).await),
            Effect::Quit => return Ok(false),
        }
        Ok(true)
    }
}

async fn wait_for_quit(app: &mut App, input: &mut mpsc::Receiver<event::Event>) -> Vec<Effect> {
    while let Some(event) = input.recv().await {
        let effects = app.handle_terminal(&event, Instant::now());
        if effects.contains(&Effect::Quit) {
            break;
        }
    }
    vec![Effect::Quit]
}

/// Reading the terminal blocks, so it has a thread. It ends with the process.
fn terminal_events() -> mpsc::Receiver<event::Event> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
