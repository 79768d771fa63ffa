//! Checks that hold for every example that serves.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::program::Program;

/// The next line that the program prints.
pub(crate) fn line(program: &mut Program) -> String {
    let out = program.0.stdout.as_mut().unwrap();
    let (mut line, mut byte) = (Vec::new(), [0]);
    while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

/// Starts a server. Returns the program and its address, which its first line contains.
pub(crate) fn serving(name: &str, arguments: &[&str]) -> (Program, SocketAddr) {
    let mut program = Program::start(name, arguments, b"");
    let line = line(&mut program);
    let addr = line.split([' ', ',', ';']).find_map(|word| word.parse().ok());
    let addr = addr.unwrap_or_else(|| panic!("{name} {arguments:?}: no address in {line:?}"));
    (program, addr)
}

/// Goal: every server accepts addresses and names, serves whether its output is read or not, and
/// ends on a signal. `others` are further arguments that it needs.
pub(crate) fn behaves(name: &str, others: &[&str]) {
    let with = |listen| [others, &["--listen", listen]].concat();
    for (listen, is_v4) in [("127.0.0.1:0", true), (":0", true), ("localhost:0", false)] {
        let (mut program, addr) = serving(name, &with(listen));
        assert!(addr.ip().is_loopback() && addr.port() != 0, "{name} {listen}: {addr}");
        assert!(addr.is_ipv4() || !is_v4, "{name} {listen}: {addr}");
        (program.0.stdout, program.0.stderr) = (None, None);
        let mut client = TcpStream::connect(addr).unwrap();
        program.signal("TERM");
        let _ = client.read_to_end(&mut Vec::new()); // a greeting, a farewell, or nothing
        drop(client);
        assert_eq!(program.end().code, Some(0), "{name} {listen}, with its output unread");
    }
    // Text that needs no name server to be refused: an empty label is no name.
    for listen in ["a..b:5555", "127.0.0.1", "5555", ":70000", "localhost:", ""] {
        let end = Program::run(name, &with(listen));
        let message = format!("'{listen}' for '--listen <HOST:PORT>'");
        let message = if listen.is_empty() { "'--listen <HOST:PORT>'" } else { message.as_str() };
        assert_eq!((end.code, end.out.as_str()), (Some(2), ""), "{name} {listen}");
        assert!(end.err.contains(message) && end.err.contains("such as 127.0.0.1:5555"), "{end:?}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let end = Program::run(name, &with(&taken));
    assert_eq!((end.code, end.out.as_str()), (Some(1), ""), "{name}: {end:?}");
    assert!(end.err.contains(&format!("{taken} is in use")), "{name}: {end:?}");
}
