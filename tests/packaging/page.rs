//! The commands of docs/install.md and docs/release.md. A block that begins with where the program was built runs as it
//! stands; the others install, publish or need Docker: that what they name is there is held instead.

use super::*;

fn blocks(page: &str) -> Vec<String> {
    let text = read(page);
    let blocks = text.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The commands of a block, without `sudo` and the comments behind them.
fn commands(block: &str) -> impl Iterator<Item = Vec<String>> + '_ {
    block.lines().flat_map(|line| line.split(" # ").next().unwrap().split(" && ")).map(|command| {
        let words = command.split_whitespace().map(str::to_owned);
        let words: Vec<_> = words.skip_while(|word| word == "sudo").collect();
        match &words[..] {
            [u, user, rest @ ..] if u == "-u" && user == "billstream" => rest.to_vec(),
            _ => words,
        }
    })
}

/// Fails unless `billstream` has this command with these flags.
fn assert_is_of_the_program(words: &[String]) {
    let help = run(Command::new(PROGRAM).args([&words[0], "--help"]));
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        assert!(help.contains(&format!(" {flag} ")), "{flag} of {words:?}");
    }
}

fn assert_is_there(words: &[String]) {
    let makefile = read("Makefile");
    match &words[0][..] {
        "make" => {
            let targets = words[1..].iter().filter(|word| !word.contains('='));
            for target in targets {
                assert!(makefile.contains(&format!("\n{target}:")), "{words:?}");
            }
        }
        "billstream" => assert_is_of_the_program(&words[1..]),
        "docker" => {
            let name = words.iter().position(|word| word == "billstream");
            assert!(name.is_some() || words[1] == "volume", "{words:?}");
            if words[1] == "exec" {
                assert_is_of_the_program(&words[4..]);
            }
        }
        // By hand, at a release.
        "cargo" | "git" => {}
        "systemctl" | "systemd-sysusers" | "journalctl" | "apt" => {}
        _ => panic!("run it, or hold it here: {words:?}"),
    }
}

#[test]
fn the_commands_of_the_pages_are_there() {
    let (mut run_whole, mut held) = (0, 0);
    for page in ["docs/install.md", "docs/release.md"] {
        for block in blocks(page) {
            if block.starts_with("billstream=target/release/billstream\n") {
                run_whole += 1;
                as_it_stands(&block);
                continue;
            }
            for words in commands(&block) {
                held += 1;
                assert_is_there(&words);
            }
        }
    }
    assert!(run_whole >= 1 && held > 15, "the blocks are not found: {run_whole}, {held}");
}

fn as_it_stands(block: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    let release = Path::new(PROGRAM).parent().unwrap();
    std::os::unix::fs::symlink(release, dir.path().join("target/release")).unwrap();
    println!("{}", run(Command::new("bash").args(["-e", "-c", block]).current_dir(dir.path())));
}
