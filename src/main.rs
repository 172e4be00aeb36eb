//! `billstream`: the server and its clients in one program.
//!
//! Everything is in [`cli`], the top floor: it alone prints, reads the environment, handles
//! signals, sets up a logger and chooses an exit code. The library below does none of these.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
