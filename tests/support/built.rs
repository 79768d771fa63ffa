//! Where the program of an example is.

use std::path::PathBuf;
use std::process::Command;

/// The example's program, built beside the test's own. `cargo test` builds an example that has tests
/// as a test only, and cargo knows best whether a program is up to date.
pub(crate) fn built(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let profile = here.ancestors().nth(2).unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--example", name]);
    build.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "example {name} does not compile");
    profile.join("examples").join(name)
}
