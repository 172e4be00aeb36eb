//! The Debian package, made by cargo-deb, and its life on a machine with systemd.

use std::env;

use super::*;

/// PATH with a cargo-deb on it: the one that is there, or that of PyPI, which has it built.
fn path_to_cargo_deb() -> Result<String, String> {
    let path = env::var("PATH").unwrap();
    if is_there("cargo-deb") {
        return Ok(path);
    }
    // It is kept between runs.
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cargo-deb");
    if !venv.join("bin/cargo-deb").exists() {
        let mut install = Command::new("sh");
        let script = "python3 -m venv \"$0\" && \"$0\"/bin/pip install --quiet --only-binary=:all: cargo-deb";
        let output = install.args(["-c", script]).arg(&venv).output().unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("no cargo-deb (`cargo install cargo-deb` has it): {why}"));
        }
    }
    Ok(format!("{}:{path}", venv.join("bin").display()))
}

/// Makes the package with `make deb`, or says why it cannot.
fn package() -> Result<PathBuf, String> {
    for (program, package) in [("dpkg-deb", "dpkg"), ("dpkg-shlibdeps", "dpkg-dev")] {
        if !is_there(program) {
            return Err(format!("{program} is not here; on Debian the package {package} has it"));
        }
    }
    let printed = run(make(&["--silent", "deb"]).env("PATH", path_to_cargo_deb()?));
    Ok(PathBuf::from(printed.lines().last().unwrap()))
}

/// Root of a container may not be allowed to mount.
fn can_boot() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--cgroup", "--ipc", "--uts", "--net"]);
    unshare.args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    let is_allowed = unshare.output().is_ok_and(|output| output.status.success());
    is_allowed && Path::new("/lib/systemd/systemd").exists()
}

#[test]
fn the_package_installs_serves_and_is_removed() {
    let package = match package() {
        Ok(package) => package,
        Err(why) => return skip::skip(&why),
    };
    holds_what_is_installed(&package);
    if !can_boot() {
        return skip::skip("to boot systemd in namespaces it must be here, and the test be root");
    }
    let dir = tempfile::tempdir().unwrap();
    let tests = Path::new(ROOT).join("tests/packaging");
    let mut boot = Command::new("timeout");
    boot.args(["--signal=KILL", "240"]).arg(tests.join("boot.sh")).arg(dir.path());
    let override_conf = dir.path().join("override.conf");
    fs::write(&override_conf, units_of_the_page()).unwrap();
    let booted = boot.arg(tests.join("trial.sh")).arg(&package).arg(override_conf);
    let booted = booted.output().unwrap();
    let printed = fs::read_to_string(dir.path().join("output")).unwrap_or_default();
    println!("{printed}");
    let errors = String::from_utf8_lossy(&booted.stderr);
    assert!(printed.ends_with("\nthe trial is over\n"), "{}: {errors}", booted.status);
    assert!(booted.status.success(), "{}: {errors}", booted.status);
}

/// What docs/install.md has `systemctl edit` allow the server more.
fn units_of_the_page() -> String {
    let page = read("docs/install.md");
    let blocks = page.split("```ini\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(|line| line.trim().to_owned() + "\n");
    lines.collect()
}

fn holds_what_is_installed(package: &Path) {
    let list = run(Command::new("dpkg-deb").arg("--contents").arg(package));
    let installed =
        run(Command::new("find").args(["usr", "etc", "-type", "f"]).current_dir(stage()));
    for file in installed.lines() {
        // Manual pages are compressed.
        assert!(list.contains(&format!(" {file}")), "{file} is not in\n{list}");
    }
    let control = |field| run(Command::new("dpkg-deb").arg("--field").arg(package).arg(field));
    assert!(control("Version").starts_with(env!("CARGO_PKG_VERSION")));
    let depends = control("Depends");
    assert!(depends.contains("systemd-sysusers") && depends.contains("libc6 "), "{depends}");
}
