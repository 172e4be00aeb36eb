//! A page of docs/clients as a test sees it: shell blocks, the pieces of one program, and what it prints.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The longest that a page may take, with its installation, in seconds.
const DEADLINE: &str = "600";

pub struct Page {
    /// The first shell block: it installs and generates, which another machine may not be able to do.
    pub install: String,
    /// The other shell blocks.
    pub run: String,
    /// All blocks of the page's language.
    pub program: String,
    /// What the page says that the program prints.
    pub prints: String,
}

impl Page {
    /// `docs/clients/NAME.md`, with the blocks of `language` for its program.
    pub fn read(name: &str, language: &str) -> Page {
        let path = format!("{ROOT}/docs/clients/{name}.md");
        let text = fs::read_to_string(&path).unwrap();
        let mut page = Page {
            install: String::new(),
            run: String::new(),
            program: String::new(),
            prints: String::new(),
        };
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(kind) = line.strip_prefix("```") else { continue };
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let block = block.join("\n") + "\n";
            match kind {
                "sh" if page.install.is_empty() => page.install = block,
                "sh" => page.run += &block,
                "text" => page.prints += &block,
                _ if kind == language => page.program += &(block + "\n"),
                _ => panic!("{path}: no test runs this block of {kind:?}: {block}"),
            }
        }
        page
    }

    /// A directory for the page that is kept between runs, with `proto/` and the program in `file`.
    pub fn directory(&self, name: &str, file: &str) -> PathBuf {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir).unwrap();
        let proto = dir.join("proto");
        let _ = fs::remove_file(&proto);
        std::os::unix::fs::symlink(Path::new(ROOT).join("proto"), proto).unwrap();
        fs::write(dir.join(file), &self.program).unwrap();
        dir
    }
}

/// Runs a script in `dir` as a person would; ends it with all that it started when it takes too long.
pub fn bash(script: &str, dir: &Path, env: &[(&str, String)]) -> Output {
    let mut bash = Command::new("timeout");
    bash.args(["--kill-after=5", DEADLINE, "bash", "-e", "-c", script]).current_dir(dir);
    // The C core would go through a proxy even to loopback.
    bash.envs(env.iter().cloned()).env("no_proxy", "127.0.0.1").process_group(0);
    bash.stdin(Stdio::null()).output().unwrap()
}

/// The last line of stderr that says something.
pub fn last_words(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned()
}
