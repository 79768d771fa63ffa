//! The program as strangers meet it: its arguments, and what it says when they are impatient.
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

/// Goal: Ctrl-C prints what it has come to, and the exit status says both that it was interrupted
/// and that all was well. Method: as soon as the server is there, and without a single sample, which
/// is the least that there can be.
#[test]
fn an_interrupted_soak_tells_what_it_has() {
    for signal in ["INT", "TERM"] {
        let mut soak = Program::start("soak", &["--minutes", "60"], b"");
        let id = soak.0.id();
        let children = format!("/proc/{id}/task/{id}/children");
        soak.until("the server is there", |_| !fs::read_to_string(&children).unwrap().is_empty());
        soak.signal(signal);
        let end = soak.end();
        assert_eq!(end.code, Some(130), "{end:?}");
        for told in ["| requests answered |", "| requests lost | 0 |", "| descriptors |"] {
            assert!(end.out.contains(told), "{told}: {end:?}");
        }
        assert!(end.err.contains("the clients finish what they are at"), "{end:?}");
    }
}

/// Goal: the table is for whoever reads it, the exit status for scripts.
#[test]
fn an_interrupted_soak_that_nobody_reads_has_its_exit_status() {
    let mut soak = Program::start("soak", &["--minutes", "60"], b"");
    (soak.0.stdout, soak.0.stderr) = (None, None);
    let id = soak.0.id();
    let children = format!("/proc/{id}/task/{id}/children");
    soak.until("the server is there", |_| !fs::read_to_string(&children).unwrap().is_empty());
    soak.signal("INT");
    assert_eq!(soak.end().code, Some(130));
}
