//! Runs the program: its arguments, its signals, and a zone file with a mistake in it.
#![cfg(target_os = "linux")]

#[path = "../../../tests/support/program.rs"]
mod program;
#[path = "../../../tests/support/server.rs"]
mod server;

use std::fs;

use program::{Program, arguments_are_explained, zero_is_refused};

const ZONE: &[&str] = &["--zone", concat!(env!("CARGO_MANIFEST_DIR"), "/../sample.zone")];

#[test]
fn it_behaves_as_servers_do() {
    server::behaves("dns_tcp", ZONE);
    arguments_are_explained("dns_tcp", ZONE, "--zone <FILE>");
    for option in ["--shards", "--idle", "--max-connections", "--stats"] {
        zero_is_refused("dns_tcp", ZONE, option);
    }
}

#[test]
fn a_mistake_in_the_zone_is_reported_with_file_and_line() {
    let file = std::env::temp_dir().join(format!("condor-{}.zone", std::process::id()));
    fs::write(&file, "$ORIGIN z.\n@ IN SOA a b 1 2 3 4 5\na IN TXT ( \"b\"\nc IN A 192.0.2.1\n")
        .unwrap();
    let name = file.to_str().unwrap();
    let end = Program::run("dns_tcp", &["--zone", name]);
    let _ = fs::remove_file(&file);
    let message = format!("dns_tcp: {name}:3: a parenthesis that is never closed\n");
    assert_eq!((end.code, end.out.as_str(), end.err), (Some(1), "", message));
    let end = Program::run("dns_tcp", &["--zone", name]);
    assert_eq!(end.code, Some(1));
    assert!(end.err.contains(&format!("cannot read {name}: ")), "{end:?}");
}
