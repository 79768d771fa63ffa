//! A test that runs in a process of its own: one that lowers a limit, counts descriptors, or sets what
//! a process has once.

use std::process::{Command, Stdio};

const CHILD: &str = "CONDOR_TEST_CHILD";

/// Whether this process was made by [`child`].
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs one test of this binary again, alone in a process of its own, for tests that lower limits
/// or count descriptors. The test asks [`is_child`] which of the two it is.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command.stdin(Stdio::null());
    command
}

/// Waits for a test in a process of its own.
#[track_caller]
pub(crate) fn passes(command: &mut Command) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "no such test: {}", text(&output.stdout));
}

/// The numbers of this process's open descriptors.
pub(crate) fn descriptors() -> Vec<u32> {
    let listed = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut fds: Vec<u32> =
        listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The one that the directory itself was read through is closed again.
    fds.retain(|fd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok());
    fds.sort_unstable();
    fds
}
