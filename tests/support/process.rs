//! A test in its own process: one that lowers a limit, counts descriptors, or sets something that
//! exists once per process.

use std::process::{Command, Stdio};

const CHILD: &str = "CONDOR_TEST_CHILD";

/// Whether this process was made by [`child`].
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs one test of this program again, alone in its own process. The test calls [`is_child`] to
/// learn which of the two it is.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command.stdin(Stdio::null());
    command
}

/// Waits for a test in its own process, which has to pass.
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
    // Without the descriptor through which the directory was read, which is closed again.
    fds.retain(|fd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok());
    fds.sort_unstable();
    fds
}
