//! The progress bar: on stderr, and only when that is a terminal.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BYTES: &str =
    "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
const ROWS: &str = "{spinner} {human_pos} rows {per_sec}";
const ROWS_OF: &str = "{bar:30} {human_pos}/{human_len} rows {per_sec} {eta} left";

/// A bar that shows how far a command is; hidden when stderr is not a terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of an input of so many bytes.
    pub fn bytes(total: u64) -> Progress {
        Progress::new(Some(total), BYTES)
    }

    /// Of rows, whose number may be known. Hidden too where the rows themselves go to a terminal.
    pub fn rows(total: Option<u64>) -> Progress {
        let progress = Progress::new(total, if total.is_some() { ROWS_OF } else { ROWS });
        if std::io::stdout().is_terminal() {
            progress.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        progress
    }

    fn new(total: Option<u64>, template: &str) -> Progress {
        // `stderr` draws nothing when that is not a terminal, and 20 times a second when it is.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(template).expect("a template of this file"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress { bar }
    }

    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// A reader that moves the bar by the bytes read.
    pub fn reading<R: Read>(&self, reader: R) -> impl Read {
        self.bar.set_position(0);
        self.bar.wrap_read(reader)
    }

    /// Prints a line on stderr without tearing the bar.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
