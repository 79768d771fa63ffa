//! Runs the program: its arguments, and what it does after a signal.
#![cfg(target_os = "linux")]

#[path = "../../../tests/support/program.rs"]
mod program;

use std::fs;

use program::{Program, arguments_are_explained, zero_is_refused};

#[test]
fn its_arguments_are_explained() {
    arguments_are_explained("soak", &[], "--minutes");
    zero_is_refused("soak", &[], "--minutes");
}

/// Goal: after Ctrl-C it prints the results so far, and the exit status shows that it was
/// interrupted without an error. Method: the signal comes as soon as the server has started, before
/// the first sample.
#[test]
fn an_interrupted_soak_prints_its_results() {
    for signal in ["INT", "TERM"] {
        let mut soak = Program::start("soak", &["--minutes", "60"], b"");
        let id = soak.0.id();
        let children = format!("/proc/{id}/task/{id}/children");
        soak.until("the server has started", |_| {
            !fs::read_to_string(&children).unwrap().is_empty()
        });
        soak.signal(signal);
        let end = soak.end();
        assert_eq!(end.code, Some(130), "{end:?}");
        for row in ["| requests answered |", "| requests lost | 0 |", "| descriptors |"] {
            assert!(end.out.contains(row), "{row}: {end:?}");
        }
        assert!(end.err.contains("the clients finish; a second signal"), "{end:?}");
    }
}

/// Goal: the exit status does not depend on the output, because scripts use only the exit status.
/// Method: stdout and stderr are closed.
#[test]
fn an_interrupted_soak_without_readers_has_its_exit_status() {
    let mut soak = Program::start("soak", &["--minutes", "60"], b"");
    (soak.0.stdout, soak.0.stderr) = (None, None);
    let id = soak.0.id();
    let children = format!("/proc/{id}/task/{id}/children");
    soak.until("the server has started", |_| !fs::read_to_string(&children).unwrap().is_empty());
    soak.signal("INT");
    assert_eq!(soak.end().code, Some(130));
}
