//! The examples that an embedder reads: they run, and they are short.

#[path = "../examples/embed.rs"]
mod embed;
#[path = "../examples/stream_blocking.rs"]
mod stream_blocking;

fn lines(example: &str) -> usize {
    example.lines().count()
}

#[test]
fn the_server_in_another_program_takes_less_than_40_lines() {
    embed::main().unwrap();
    assert!(lines(include_str!("../examples/embed.rs")) < 40);
}

#[test]
fn another_blocking_source_takes_less_than_60_lines() {
    stream_blocking::main().unwrap();
    assert!(lines(include_str!("../examples/stream_blocking.rs")) < 60);
}
