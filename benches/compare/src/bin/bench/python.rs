//! Python's own gRPC as a client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::data::Result;
use crate::doors::{run, ROWS};
use crate::scenario::Bench;
use crate::server::Program;
use crate::HERE;

/// An interpreter with grpcio, and the stubs; both are kept for the next run.
pub struct Python {
    interpreter: PathBuf,
    stubs: PathBuf,
}

/// One upload.
pub struct Upload {
    pub per_second: f64,
    /// Of its time, what was after the last message was taken.
    pub creating: f64,
}

impl Python {
    pub fn ready(directory: &Path) -> Result<Python> {
        let (venv, stubs) = (directory.join("python"), directory.join("python-stubs"));
        let interpreter = venv.join("bin/python");
        if run(Command::new(&interpreter).args(["-c", "import grpc, grpc_tools"])).is_err() {
            // An earlier run may have left it half done, or not at all.
            let _ = fs::remove_dir_all(&venv);
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            let pip = ["-m", "pip", "install", "--quiet", "--only-binary=:all:"];
            run(Command::new(&interpreter).args(pip).args(["grpcio", "grpcio-tools"]))?;
        }
        fs::create_dir_all(&stubs)?;
        let mut protoc = Command::new(&interpreter);
        protoc.args(["-m", "grpc_tools.protoc", "--proto_path"]).arg(format!("{HERE}/../../proto"));
        for out in ["--python_out", "--grpc_python_out"] {
            protoc.arg(out).arg(&stubs);
        }
        run(protoc.arg("billing/v1/report.proto"))?;
        Ok(Python { interpreter, stubs })
    }

    /// One upload after another from one process, each with so many rows a message; 0: the rpc of a row a message.
    pub fn uploads(
        &self,
        bench: &Bench,
        program: &Program,
        sizes: &[usize],
    ) -> Result<Vec<Upload>> {
        let server = bench.start(program, &bench.data_of(program).copy(bench.scale.write_base)?)?;
        let mut script = Command::new(&self.interpreter);
        script.arg(format!("{HERE}/python/bulk.py")).env("PYTHONPATH", &self.stubs);
        // Loopback needs no proxy, and grpcio would ask one.
        script.env("no_grpc_proxy", "127.0.0.1");
        script.args([server.address.to_string(), ROWS.to_string()]);
        let printed = run(script.args(sizes.iter().map(usize::to_string)))?;
        let upload = |line: &str| -> Result<Upload> {
            let (per_second, creating) = line.split_once(' ').ok_or("no two numbers")?;
            Ok(Upload { per_second: per_second.parse()?, creating: creating.parse()? })
        };
        printed.lines().map(upload).collect()
    }
}
