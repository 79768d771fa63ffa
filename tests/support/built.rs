//! Builds the programs of the examples.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// The examples that this process has built.
static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Builds the example's program beside the test's own, and returns its path. `cargo test` builds an
/// example that has tests only as a test, and only cargo knows whether a program is up to date. So
/// cargo is called once for each example.
pub(crate) fn built(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let profile = here.ancestors().nth(2).unwrap();
    let mut built = BUILT.lock().unwrap_or_else(|broken| broken.into_inner());
    if !built.contains(name) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", name]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "example {name} does not compile");
        built.insert(name.to_owned());
    }
    profile.join("examples").join(name)
}
