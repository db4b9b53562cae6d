//! The only door to the terminal: tables and results to stdout, progress and complaints to stderr.

use std::io::{self, IsTerminal, Write};

/// Writes a line of a result. A reader that went away is no reason to fail.
pub(crate) fn line(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes a line about the run itself.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether progress is drawn on a screen.
pub(crate) fn is_screen() -> bool {
    io::stderr().is_terminal()
}
