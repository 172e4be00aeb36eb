//! The progress bar: on stderr, and only when that is a terminal.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::stderr::say;

const BYTES: &str =
    "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
const ROWS: &str = "{spinner} {human_pos} rows {rate}/s";
const ROWS_OF: &str = "{bar:30} {human_pos}/{human_len} rows {rate}/s {eta} left";

/// A bar that shows how far a command is; hidden when stderr is not a terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of an input of so many bytes.
    pub fn bytes(total: u64) -> Progress {
        Progress::new(Some(total), BYTES, ProgressDrawTarget::stderr())
    }

    /// Of rows. Hidden too where the rows may get to the terminal, by themselves
    /// or through a pipe: whatever prints there would leave pieces of the bar between its lines.
    pub fn rows() -> Progress {
        match stdout_is_a_file() {
            true => Progress::rows_to_a_file(),
            false => Progress::hidden(),
        }
    }

    /// Of rows that do not go to stdout.
    pub fn rows_to_a_file() -> Progress {
        Progress::new(None, ROWS, ProgressDrawTarget::stderr())
    }

    /// The number of bytes is known now.
    pub fn set_bytes(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// The number of rows is known now.
    pub fn set_total(&self, rows: u64) {
        self.bar.set_length(rows);
        self.bar.set_style(style(ROWS_OF));
        // Many are here before its next turn.
        self.bar.force_draw();
    }

    /// Of a command that is over in a moment; it only notes.
    pub fn hidden() -> Progress {
        Progress::new(None, ROWS, ProgressDrawTarget::hidden())
    }

    /// `stderr` draws nothing when that is not a terminal, and 20 times a second when it is.
    fn new(total: Option<u64>, template: &str, target: ProgressDrawTarget) -> Progress {
        let bar = ProgressBar::with_draw_target(total, target);
        bar.set_style(style(template));
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
        self.notes()(line);
    }

    /// [`Progress::note`] for another place.
    pub fn notes(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |line| bar.suspend(|| say(line))
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("a template of this file");
    style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
        // What cannot be written is not seen either.
        let _ = write!(out, "{}", HumanCount(state.per_sec() as u64));
    })
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Whether rows on stdout go to a file, or to nowhere.
fn stdout_is_a_file() -> bool {
    let stdout = io::stdout();
    let metadata = stdout.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    !stdout.is_terminal() && metadata.is_ok_and(|stdout| !stdout.file_type().is_fifo())
}
