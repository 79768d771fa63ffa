//! Builds the servers. One that cannot be built is reported and left out; the others go on.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::haproxy;
use crate::servers::{Server, Source};

/// The workspace of this benchmark, as it was when the driver was built.
pub(crate) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The target directory this driver was built into.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let driver = env::current_exe()?;
    let target =
        driver.ancestors().nth(2).context("the driver is not inside a target directory")?;
    Ok(target.to_owned())
}

/// Builds a server and gives its executable.
pub(crate) fn build(server: &Server) -> Result<PathBuf> {
    match server.source {
        Source::C(name) => build_c(name),
        Source::Package(package) => {
            build_rust(&["--package", package], &workspace().join("Cargo.toml"), package)
        }
        Source::Example(example) => {
            let manifest = workspace().join("../../Cargo.toml");
            build_rust(&["--example", example], &manifest, &format!("examples/{example}"))
        }
        Source::Haproxy => haproxy::find(),
    }
}

fn build_c(name: &str) -> Result<PathBuf> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let directory = target_dir()?.join("bench-servers");
    fs::create_dir_all(&directory)?;
    let program = directory.join(format!("{name}-c"));
    let mut command = Command::new(&compiler);
    command
        .args(["-std=gnu11", "-O3", "-march=native", "-Wall", "-o"])
        .arg(&program)
        .arg(workspace().join(format!("servers/c/{name}.c")));
    run(command, &format!("there is no C compiler ({} cannot be run)", compiler.display()))?;
    Ok(program)
}

/// The profile is that of this workspace, also for a program of the workspace around it.
fn build_rust(what: &[&str], manifest: &Path, program: &str) -> Result<PathBuf> {
    let target = target_dir()?;
    let mut command = Command::new(cargo());
    command
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .args(["build", "--release", "--quiet"])
        .args(what)
        .arg("--manifest-path")
        .arg(manifest);
    command.arg("--target-dir").arg(&target);
    run(command, "cargo cannot be run")?;
    Ok(target.join("release").join(program))
}

/// The cargo that runs this driver.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn run(mut command: Command, cannot: &str) -> Result<()> {
    let Output { status, stderr, .. } =
        command.stdin(Stdio::null()).output().context(cannot.to_owned())?;
    if !status.success() {
        bail!("it does not compile:\n{}", first_lines(&String::from_utf8_lossy(&stderr)));
    }
    Ok(())
}

/// The first lines of a compiler's output.
fn first_lines(text: &str) -> String {
    const LINES: usize = 30;
    let mut lines: Vec<&str> = text.lines().take(LINES).collect();
    if text.lines().nth(LINES).is_some() {
        lines.push("...");
    }
    lines.join("\n")
}
