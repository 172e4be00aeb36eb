//! The systemd unit: sound, confined, and told what the server does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// What `systemd-analyze security` may find at most, in tenths: 11 are found by systemd 252. What is left is that it
/// has the network, and unix sockets.
const EXPOSURE: &str = "15";

/// As installed, but for the program, which is where it was staged.
fn unit(dir: &Path) -> PathBuf {
    let installed = fs::read_to_string(stage().join("usr/lib/systemd/system/billstream.service"));
    let program = stage().join("usr/bin/billstream");
    let text = installed.unwrap().replace("/usr/bin/billstream", program.to_str().unwrap());
    let unit = dir.join("billstream.service");
    fs::write(&unit, text).unwrap();
    unit
}

#[test]
fn systemd_finds_the_unit_sound_and_confined() {
    if !is_there("systemd-analyze") {
        return skip::skip("systemd-analyze is not here; the package systemd has it");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    // (The manual pages that it names are not installed here.)
    let output = verify.args(["verify", "--man=no"]).arg(unit(dir.path())).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");

    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE]);
    let printed = run(security.arg(unit(dir.path())));
    println!("{}", printed.lines().last().unwrap());
}

#[test]
fn what_the_unit_names_is_installed() {
    let unit = read("packaging/billstream.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    for page in value("Documentation").split(' ') {
        let name = page.strip_prefix("man:").unwrap().strip_suffix("(1)").unwrap();
        assert!(stage().join(format!("usr/share/man/man1/{name}.1")).exists(), "{page}");
    }
    for path in value("ExecStart").split(' ').filter(|word| word.starts_with('/')) {
        assert!(stage().join(&path[1..]).exists(), "{path}");
    }
    let user = format!("u {} - ", value("User"));
    assert!(read("packaging/billstream.sysusers").contains(&user), "{user}");
}

/// Under another prefix the unit starts the program that is there.
#[test]
fn the_unit_follows_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    run(&mut make(&["install", &format!("DESTDIR={}", dir.path().display())]));
    let unit = dir.path().join("usr/local/lib/systemd/system/billstream.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/billstream serve"), "{unit}");
    assert!(dir.path().join("usr/local/bin/billstream").exists());
}

#[test]
fn systemd_is_told_when_it_serves_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut message = [0; 1024];
        let bytes = systemd.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..bytes]).into_owned()
    };
    let mut server = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0", "--drain-timeout-ms", "70000", "--config"])
        .arg(stage().join("etc/billstream/billstream.toml"))
        .arg("--db")
        .arg(dir.path().join("bills.db"))
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("listening on ").unwrap();
    assert_eq!(told(), format!("READY=1\nSTATUS=serving on {addr}\n"));
    run(Command::new("kill").arg(server.id().to_string()));
    let stopping = told();
    assert!(stopping.starts_with("STOPPING=1\nSTATUS="), "{stopping}");
    // Its drain, and half a minute.
    assert!(stopping.ends_with("\nEXTEND_TIMEOUT_USEC=100000000\n"), "{stopping}");
    assert!(server.wait().unwrap().success());
}
