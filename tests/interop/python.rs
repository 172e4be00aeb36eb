//! Python's own gRPC: a virtual environment with grpcio, and stubs made from proto files. Both are kept between
//! runs, in the directory of cargo for tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is installed, unpinned: a client of today is what users have. grpcio-status brings a `google.rpc` of its
/// own, which must not clash with anything in `proto/`.
const PACKAGES: [&str; 5] =
    ["grpcio", "grpcio-tools", "grpcio-status", "grpcio-health-checking", "grpcio-reflection"];
const IMPORTS: &str = "import grpc, grpc_tools, grpc_status, grpc_health, grpc_reflection";

/// An interpreter with everything that the scripts in `tests/interop` import.
pub struct Python {
    interpreter: PathBuf,
    stubs: PathBuf,
}

impl Python {
    /// A command that runs a script of `tests/interop`.
    pub fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(root().join("tests/interop").join(name));
        command.env("PYTHONPATH", &self.stubs).env("PYTHONUNBUFFERED", "1");
        // Loopback needs no proxy, and grpcio would ask one.
        command.env("no_grpc_proxy", "127.0.0.1");
        command
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Makes the environment unless it is there, and the stubs of the contract in this directory of the repository; or
/// says why there is none.
pub fn ready_with(contract: &str) -> Result<Python, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    // Test programs may run side by side. The lock goes with the file.
    let lock = File::create(dir.join("python.lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let (venv, stubs) = (dir.join("python"), dir.join("python-stubs").join(contract));
    let interpreter = venv.join("bin/python");
    if !imports_grpc(&interpreter) {
        // What an earlier run may have left half done.
        let _ = fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
        ];
        run(Command::new(&interpreter).args(pip).args(PACKAGES))?;
    }
    make_stubs(&interpreter, contract, &stubs)?;
    Ok(Python { interpreter, stubs })
}

/// The same with the stubs of `proto/`, our contract.
pub fn ready() -> Result<Python, String> {
    ready_with("proto")
}

fn imports_grpc(interpreter: &Path) -> bool {
    run(Command::new(interpreter).args(["-c", IMPORTS])).is_ok()
}

fn make_stubs(interpreter: &Path, contract: &str, stubs: &Path) -> Result<(), String> {
    fs::create_dir_all(stubs).map_err(|e| format!("{}: {e}", stubs.display()))?;
    let mut protoc = Command::new(interpreter);
    protoc.args(["-m", "grpc_tools.protoc"]).current_dir(root());
    for (flag, dir) in [
        ("--proto_path", Path::new(contract)),
        ("--python_out", stubs),
        ("--grpc_python_out", stubs),
    ] {
        protoc.arg(format!("{flag}={}", dir.display()));
    }
    run(protoc.args(protos(&root().join(contract))))
}

/// All that is in the directory, since that is what people generate.
fn protos(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(protos(&path));
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    found
}

/// Runs a command; its last words when it fails.
pub fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{:?}", command.get_program());
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(format!("{name}: {}: {last}", output.status))
}
