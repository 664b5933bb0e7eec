//! What the demo does at the moment, on one line of the terminal; nothing where stderr is none.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// How often the line is written anew: its seconds go on.
pub(super) const TICK: Duration = Duration::from_millis(100);

pub(super) struct Progress {
    on: bool,
    words: String,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { on: io::stderr().is_terminal(), words: String::new(), shown: None }
    }

    /// Shows what goes on now.
    pub(super) fn step(&mut self, words: String, elapsed: Duration) {
        self.words = words;
        self.shown = None;
        self.show(elapsed);
    }

    /// Shows how long it goes on, unless it was shown a moment ago.
    pub(super) fn show(&mut self, elapsed: Duration) {
        let fresh = self.shown.is_some_and(|at| at.elapsed() < TICK);
        if self.on && !fresh && !self.words.is_empty() {
            self.shown = Some(Instant::now());
            write(&format!("\r\x1b[K{:4.1} s  {}", elapsed.as_secs_f64(), self.words));
        }
    }

    /// Makes room for what is printed.
    pub(super) fn clear(&mut self) {
        if self.on && !std::mem::take(&mut self.words).is_empty() {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    // A terminal that is gone is no error of the demo's.
    let _ = write!(io::stderr(), "{text}");
    let _ = io::stderr().flush();
}
