//! The house rules, read off the source itself.
//!
//! A rule is a function from a file's text to what is wrong with it. The first half of the tests
//! holds the repository to the rules; the second half shows each rule a bad snippet, so that none
//! of them passes because it looks at nothing.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_COLUMNS: usize = 100;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_FILE_LINES: usize = 600;

/// The rooms that know no socket, no clock and no input or output.
const PURE: [&str; 5] = ["connection", "framing", "buffer", "timers", "wheel"];
/// What a pure room names besides the others: reasons and errors are everybody's.
const SHARED: [&str; 1] = ["error"];
/// Who may read or write a stream: the client is no part of the reactor, and the test kit is the
/// stream.
const STREAM_ROOMS: [&str; 3] = ["peer", "client", "testing"];

// ---- the repository ----

#[test]
fn lines_fit_in_100_columns() {
    hold(&sources(&["src", "tests", "examples", "fuzz"]), long_lines);
}

#[test]
fn functions_fit_on_a_screen() {
    hold(&sources(&["src", "tests", "examples", "fuzz"]), long_functions);
}

#[test]
fn files_are_small() {
    hold(&sources(&["src"]), |text| long_files(text, MAX_FILE_LINES));
}

#[test]
fn nothing_is_left_for_later() {
    hold(&sources(&["src", "tests", "examples", "fuzz"]), leftovers);
}

#[test]
fn there_is_no_unsafe_code() {
    hold(&sources(&["src"]), unsafe_code);
}

#[test]
fn every_file_says_what_it_is() {
    hold(&sources(&["src", "tests", "examples"]), no_header);
}

#[test]
fn pure_rooms_know_no_socket_and_no_clock() {
    let files: Vec<Source> =
        sources(&["src"]).into_iter().filter(|file| PURE.contains(&room(&file.path))).collect();
    assert!(files.len() >= PURE.len(), "a pure room has moved");
    hold(&files, impurities);
}

#[test]
fn only_peers_read_or_write_a_stream() {
    let files: Vec<Source> = sources(&["src"])
        .into_iter()
        .filter(|file| !STREAM_ROOMS.contains(&room(&file.path)))
        .filter(|file| !PURE.contains(&room(&file.path)))
        .collect();
    assert!(!files.is_empty());
    hold(&files, stream_calls);
}

#[test]
fn every_example_says_how_to_run_it() {
    let files: Vec<Source> =
        sources(&["examples"]).into_iter().filter(|file| example(&file.path).is_some()).collect();
    hold(&files, no_command);
}

#[test]
fn the_readme_shows_the_crate_docs_example() {
    let readme = fenced(&read("README.md"), "```rust");
    let crate_docs = fenced(&docs(&read("src/lib.rs")), "```no_run");
    assert_eq!(readme, crate_docs);

    // What the example adds is in its `main`: arguments, a log, signals.
    let (uses, handler) = readme.split_once("struct ").expect("an example with a handler");
    let (handler, _) = handler.split_once("fn main()").expect("an example with a main");
    let server = read("examples/ping_server.rs");
    assert!(server.contains(handler), "the handler of ping_server is not the README's");
    assert!(server.contains(uses.trim()), "ping_server does not use what the README does");
}

#[test]
fn the_readme_and_ci_name_the_same_test_command() {
    // Packages on a registry come without it.
    let Ok(ci) = fs::read_to_string(root().join(".ci/run")) else { return };
    let commands = fenced(&read("README.md"), "```sh");
    let command = commands.lines().last().expect("two commands");
    assert!(ci.contains(&format!("step 'tests' '{command}'")), "not a step of .ci/run: {command}");
}

// ---- the rules ----

/// What is wrong with a file: line numbers from 1, and a word about each.
type Findings = Vec<(usize, String)>;

/// The columns of a line in a doc comment are counted without its marker, so that code in it may be
/// as wide as other code. A table's row cannot be broken.
fn long_lines(text: &str) -> Findings {
    find(text, |line| {
        let trimmed = line.trim_start();
        let inner = ["/// ", "//! "].iter().find_map(|marker| trimmed.strip_prefix(marker));
        let columns = inner.unwrap_or(line).chars().count();
        let row = inner.is_some_and(|inner| inner.starts_with('|'));
        (columns > MAX_COLUMNS && !row).then(|| format!("{columns} columns"))
    })
}

/// Comments and empty lines do not count. Relies on rustfmt: a function ends with the first brace or
/// semicolon at its own indentation.
fn long_functions(text: &str) -> Findings {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if !is_function(line) || line.ends_with(['}', ';']) {
            continue;
        }
        let ends = |line: &&str| {
            let code = line.trim_start();
            indent(line) == indent(lines[at]) && (code == "}" || code.ends_with(';'))
        };
        let end = lines[at + 1..].iter().position(ends).map_or(lines.len(), |end| at + end + 2);
        let len = lines[at..end].iter().filter(|line| !code(line).trim().is_empty()).count();
        if len > MAX_FUNCTION_LINES {
            findings.push((at + 1, format!("a function of {len} lines")));
        }
    }
    findings
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "async" | "extern" | "unsafe")
    });
    words.next() == Some("fn")
}

fn long_files(text: &str, max: usize) -> Findings {
    let len = text.lines().count();
    if len > max { vec![(len, format!("a file of {len} lines"))] } else { Vec::new() }
}

/// Spelled in halves, so that this file may hold itself to the rule.
fn leftovers(text: &str) -> Findings {
    const MARKS: [&str; 4] =
        [concat!("to", "do!"), concat!("db", "g!"), concat!("FIX", "ME"), concat!("XX", "X")];
    find(text, |line| {
        MARKS.iter().find(|mark| line.contains(**mark)).map(|mark| format!("{mark} is left"))
    })
}

fn unsafe_code(text: &str) -> Findings {
    find(text, |line| {
        words(code(line)).any(|word| word == "unsafe").then(|| String::from("unsafe code"))
    })
}

fn no_header(text: &str) -> Findings {
    if text.starts_with("//! ") { Vec::new() } else { vec![(1, String::from("no `//!`"))] }
}

/// A pure room may use a few crates without input or output, and the rooms of its kind.
fn impurities(text: &str) -> Findings {
    const FOREIGN: [&str; 5] = ["mio", "socket2", "Instant", "SystemTime", "ErrorKind"];
    let mut findings = find(text, |line| {
        let code = code(line);
        let named = words(code).find(|word| FOREIGN.contains(word)).or_else(|| {
            ["std::io", "std::net", "std::fs", "std::thread"]
                .into_iter()
                .find(|path| code.contains(path))
        });
        named.map(|name| format!("names {name}"))
    });
    for (at, import) in imports(text) {
        let path: Vec<&str> = words(&import).collect();
        if path.first() == Some(&"std") && path.iter().any(|word| ["io", "net"].contains(word)) {
            findings.push((at, format!("imports {import}")));
        }
    }
    findings.extend(find(text, |line| {
        let rooms = code(line).split("crate::").skip(1).filter_map(|path| words(path).next());
        let mut above = rooms.filter(|room| !PURE.contains(room) && !SHARED.contains(room));
        above.next().map(|room| format!("names crate::{room}, which is above it"))
    }));
    findings
}

/// Calls of `Read` and `Write`. Locks are read and written without arguments, and may be.
fn stream_calls(text: &str) -> Findings {
    const CALLS: [&str; 9] = [
        "read",
        "read_exact",
        "read_to_end",
        "read_to_string",
        "read_vectored",
        "write",
        "write_all",
        "write_vectored",
        "peek",
    ];
    find(text, |line| {
        let called = |call: &&str| {
            code(line).match_indices(&format!(".{call}(")).any(|(at, found)| {
                let argument = code(line)[at + found.len()..].chars().next();
                argument.is_some_and(|first| first != ')')
            })
        };
        CALLS.into_iter().find(|call| called(call)).map(|call| format!("calls {call}"))
    })
}

fn no_command(text: &str) -> Findings {
    let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
    let told = header.iter().any(|line| line.contains("cargo run --release --example "));
    if told { Vec::new() } else { vec![(1, String::from("the header does not say how to run it"))] }
}

// ---- reading ----

/// A file of the repository, its path with slashes and from the root.
struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files below these directories. Those that a package leaves out may be missing.
fn sources(directories: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for directory in directories {
        collect(&root().join(directory), &mut sources);
    }
    assert!(!sources.is_empty(), "nothing to read in {directories:?}");
    sources
}

fn collect(directory: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.map_while(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).expect("a path below the root");
            let path = relative.to_string_lossy().into_owned();
            sources.push(Source { text: read(&path), path });
        }
    }
}

/// Fails with everything that is wrong, as `path:line: what`.
#[track_caller]
fn hold(files: &[Source], rule: impl Fn(&str) -> Findings) {
    let told: Vec<String> = files
        .iter()
        .flat_map(|Source { path, text }| {
            rule(text).into_iter().map(move |(line, what)| format!("{path}:{line}: {what}"))
        })
        .collect();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
}

fn find(text: &str, rule: impl Fn(&str) -> Option<String>) -> Findings {
    let numbered = (1..).zip(text.lines());
    numbered.filter_map(|(number, line)| Some((number, rule(line)?))).collect()
}

/// A line without its comment. A `//` in a string is taken for one; no rule is harmed by that.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Every `use`, in one piece, with the line it begins on.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut imports: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        let code = code(line).trim();
        let begun = code.strip_prefix("pub ").unwrap_or(code).strip_prefix("use ");
        if let Some(path) = begun {
            imports.push((number, path.to_owned()));
            open = true;
        } else if open && let Some((_, path)) = imports.last_mut() {
            path.push_str(code);
        }
        open &= !code.ends_with(';');
    }
    imports
}

/// The room that a file in `src` is, or belongs to.
fn room(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap_or(path);
    path.split(['/', '.']).next().unwrap_or_default()
}

/// The example that a file is the root of.
fn example(path: &str) -> Option<&str> {
    let name = path.strip_prefix("examples/")?;
    let name = name.strip_suffix("/main.rs").or_else(|| name.strip_suffix(".rs"))?;
    (!name.contains('/')).then_some(name)
}

/// The text of the `//!` comment at the top of a file.
fn docs(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

/// The text of the first code block that opens with `fence`.
fn fenced(text: &str, fence: &str) -> String {
    let block = text.lines().skip_while(|line| *line != fence).skip(1);
    let block: String =
        block.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
    assert!(!block.is_empty(), "no block opens with {fence}");
    block
}

// ---- the rules can fail ----

#[test]
fn long_lines_are_found() {
    assert_eq!(long_lines(&"x".repeat(100)), []);
    assert_eq!(long_lines(&format!("\n{}", "x".repeat(101))), [(2, "101 columns".into())]);
    assert_eq!(long_lines(&"ä".repeat(100)), [], "columns are not bytes");
    assert_eq!(long_lines(&format!("//! {}", "x".repeat(100))), []);
    assert_eq!(long_lines(&format!("//! {}", "x".repeat(101))), [(1, "101 columns".into())]);
    assert_eq!(long_lines(&format!("//! |{}", "x".repeat(101))), []);
    assert_eq!(long_lines(&format!("|{}", "x".repeat(100))), [(1, "101 columns".into())]);
}

#[test]
fn long_functions_are_found() {
    let function = |head: &str, lines| format!("    {head} {{\n{}    }}\n", "a;\n".repeat(lines));
    assert_eq!(long_functions(&function("fn f()", 68)), []);
    let found = [(1, String::from("a function of 71 lines"))];
    for head in ["fn f()", "pub fn f()", "pub(crate) fn f()", "pub const fn f()"] {
        assert_eq!(long_functions(&function(head, 69)), found, "{head}");
    }
    let short = "fn f();\nfn g(\n    a: u8,\n) -> u8;\nfn h() { 1 }\n";
    assert_eq!(long_functions(&format!("{short}{}", "a;\n".repeat(99))), []);
    assert_eq!(long_functions(&format!("/// fn f()\n{}", "a;\n".repeat(99))), []);
    assert_eq!(long_functions(&format!("fn f() {{\n{}}}", "    // why\n\n".repeat(99))), []);
    assert_eq!(long_functions(&format!("fn f() {{\n{}", "    a;\n".repeat(99))).len(), 1, "no end");
}

#[test]
fn long_files_are_found() {
    assert_eq!(long_files("a\na\na\n", 3), []);
    assert_eq!(long_files("a\na\na\na", 3).len(), 1);
}

#[test]
fn leftovers_are_found() {
    for halves in [["to", "do!()"], ["db", "g!(a)"], ["// FIX", "ME"], ["// XX", "X why?"]] {
        let snippet = format!("fn f() {{\n    {}\n}}", halves.concat());
        assert_eq!(leftovers(&snippet).len(), 1, "{snippet}");
    }
    assert_eq!(leftovers("fn f() {}"), []);
}

#[test]
fn unsafe_code_is_found() {
    assert_eq!(unsafe_code("let a = unsafe { *p };").len(), 1);
    assert_eq!(unsafe_code("    unsafe fn f() {}").len(), 1);
    assert_eq!(unsafe_code("#![forbid(unsafe_code)] // no unsafe here"), []);
}

#[test]
fn missing_headers_are_found() {
    assert_eq!(no_header("use std::fmt;\n").len(), 1);
    assert_eq!(no_header("//! The wheel.\n"), []);
    assert_eq!(no_command("//! An example.\n// cargo run --release --example a\n").len(), 1);
    assert_eq!(no_command("//! An example.\n//! cargo run --release --example a\n"), []);
}

#[test]
fn impurities_are_found() {
    for bad in [
        "use mio::Token;",
        "use std::time::Instant;",
        "use std::time::{\n    Duration,\n    Instant,\n};",
        "use std::{fmt, io};",
        "use std::{\n    fmt,\n    net::SocketAddr,\n};",
        "pub use std::io::Read;",
        "fn f(e: std::io::Error) {}",
        "fn now() -> Instant {}",
        "use crate::peer::Peer;",
        "fn f(t: &crate::turn::Turn) {}",
    ] {
        assert!(!impurities(bad).is_empty(), "{bad}");
    }
    for good in [
        "use std::time::Duration;",
        "use crate::wheel::Tick;\nuse crate::error::CloseReason;",
        "//! No `mio`, no `Instant`, no `std::io`.",
        "/// See [`CloseReason::Io`](crate::CloseReason::Io).",
    ] {
        assert_eq!(impurities(good), [], "{good}");
    }
}

#[test]
fn calls_of_streams_are_found() {
    for bad in [
        "let n = self.stream.read(&mut buffer)?;",
        "peer.stream.write(bytes)?;",
        "stream.write_all(b\"pong\")?;",
        "socket.peek(&mut one)?;",
    ] {
        assert_eq!(stream_calls(bad).len(), 1, "{bad}");
    }
    for good in ["lock.read().unwrap()", "fn read(&mut self)", "// calls stream.read(buffer)"] {
        assert_eq!(stream_calls(good), [], "{good}");
    }
}
