//! The page of Rust: its program is examples/client.rs, which is compiled here. So that what it prints can be
//! seen, this binary runs itself.

use std::process::Command;

use super::page::Page;
use super::{assert_runs, CODES};

include!("../../examples/client.rs");

#[test]
#[ignore = "the program of the page, which the test below runs"]
fn the_program() {
    main().unwrap();
}

#[test]
fn the_page_of_rust_runs_as_it_stands() {
    let page = Page::read("rust", "rust");
    assert_eq!(page.program.trim_end(), include_str!("../../examples/client.rs").trim_end());
    assert_eq!(page.install, "cargo run --release --example client\n");
    let run = |addr| {
        let mut program = Command::new(env::current_exe().unwrap());
        program.args(["--exact", "rust::the_program", "--ignored", "--nocapture"]);
        let mut output = program.env("BILLSTREAM_ADDR", addr).output().unwrap();
        output.stdout = printed(output.stdout);
        output
    };
    assert_runs(&page, CODES, run);
}

/// What is left of the output without what the harness has before and after it.
fn printed(stdout: Vec<u8>) -> Vec<u8> {
    let stdout = String::from_utf8(stdout).unwrap();
    let (_, printed) = stdout.split_once("running 1 test\n").expect("one test");
    let (printed, _) = printed.rsplit_once("test rust::the_program").expect("its end");
    printed.as_bytes().to_vec()
}
