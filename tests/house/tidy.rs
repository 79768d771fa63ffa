//! The house rules, checked on the text of the source.
//!
//! A rule is a function from a file's text, or from the graph of all modules, to a list of what is
//! wrong. The first half of the tests applies the rules to the repository. The second half gives
//! each rule a bad snippet, so that no rule passes because it checks nothing. What the compiler and
//! clippy check (`unsafe`, long functions, forgotten debugging) is no rule here.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::imports::{Graph, is_test};

const MAX_COLUMNS: usize = 100;
/// The maximum number of lines of a file before its tests.
const MAX_FILE_LINES: usize = 450;

/// The modules that may read or write a stream. The client is no part of the reactor, and the test
/// kit is the stream.
const STREAM_MODULES: [&str; 6] = ["peer", "opening", "stream", "client", "testing", "simulated"];

// ---- the repository ----

/// Run with `--nocapture`, it prints the graph in numbers.
#[test]
fn the_graph_of_modules_is_whole() {
    let graph = graph();
    println!("{}", graph.in_numbers());
    none(graph.lost());
}

#[test]
fn modules_form_no_circle() {
    none(graph().circles());
}

#[test]
fn modules_name_only_those_below_them() {
    none(graph().upward());
}

#[test]
fn pure_modules_reach_no_socket_and_no_clock() {
    let graph = graph();
    assert!(!graph.pure().is_empty(), "no module is pure");
    none(graph.impure());
}

#[test]
fn the_crate_docs_list_the_modules_in_order() {
    assert_eq!(listed(&docs(&read("src/lib.rs"))), graph().order());
}

#[test]
fn the_code_map_has_every_module() {
    let map = read("ARCHITECTURE.md");
    none(unmapped(&map, graph().modules()));
}

#[test]
fn lines_fit_in_100_columns() {
    hold(&sources(&["src", "tests", "examples", "fuzz"]), long_lines);
}

#[test]
fn files_are_small() {
    let files: Vec<Source> =
        sources(&["src"]).into_iter().filter(|file| !is_test(&file.path)).collect();
    assert!(!files.is_empty());
    hold(&files, |text| long_files(text, MAX_FILE_LINES));
}

#[test]
fn no_marks_of_unfinished_work_are_left() {
    hold(&sources(&["src", "tests", "examples", "fuzz"]), leftovers);
}

#[test]
fn every_file_says_what_it_is() {
    hold(&sources(&["src", "tests", "examples"]), no_header);
}

#[test]
fn only_peers_read_or_write_a_stream() {
    let graph = graph();
    let files: Vec<Source> = sources(&["src"])
        .into_iter()
        .filter(|file| !STREAM_MODULES.contains(&module(&file.path)))
        .filter(|file| !graph.pure().contains(module(&file.path)) && !is_test(&file.path))
        .collect();
    assert!(!files.is_empty());
    hold(&files, stream_calls);
}

#[test]
fn log_lines_have_one_form() {
    let files = sources(&["src"]);
    let lines: usize = files.iter().map(|file| file.text.matches("say!(").count()).sum();
    assert!(lines > 20, "only {lines} lines are found");
    hold(&files, formless_logs);
}

#[test]
fn every_line_is_logged_by_say() {
    let files: Vec<Source> =
        sources(&["src"]).into_iter().filter(|file| file.path != "src/logging.rs").collect();
    hold(&files, unguarded_lines);
}

#[test]
fn the_life_of_a_connection_is_one_type() {
    let files: Vec<Source> =
        sources(&["src"]).into_iter().filter(|file| file.path != "src/life.rs").collect();
    hold(&files, life_elsewhere);
}

#[test]
fn every_handler_ends_with_the_default_action() {
    let mut files = sources(&["src", "tests", "examples", "fuzz", "benches"]);
    files.retain(|file| !file.path.starts_with("tests/house"));
    let handlers: usize =
        files.iter().map(|file| file.text.matches("fn handle_info").count()).sum();
    assert!(handlers > 30, "only {handlers} handlers are found");
    hold(&files, forgetful_handlers);
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

    // The example differs only in its `main`: arguments, a log, signals.
    let (uses, handler) = readme.split_once("struct ").expect("an example with a handler");
    let (handler, _) = handler.split_once("fn main()").expect("an example with a main");
    let server = read("examples/ping_server.rs");
    assert!(server.contains(handler), "the handler of ping_server is not the README's");
    assert!(server.contains(uses.trim()), "ping_server does not use what the README does");
}

#[test]
fn the_readme_and_ci_name_the_same_test_command() {
    // A package from a registry has no `.ci/run`.
    let Ok(ci) = fs::read_to_string(root().join(".ci/run")) else { return };
    let commands = fenced(&read("README.md"), "```sh");
    let command = commands.lines().last().expect("two commands");
    assert!(ci.contains(&format!("step 'tests' '{command}'")), "not a step of .ci/run: {command}");
}

// ---- the rules ----

/// What is wrong with a file: line numbers from 1, and a text for each.
type Findings = Vec<(usize, String)>;

/// A logger is the user's code and may panic. `say!` guards it.
fn unguarded_lines(text: &str) -> Findings {
    find(text, |line| {
        let logs = ["error!", "warn!", "info!", "debug!", "trace!", "log!"];
        let found = logs.iter().find(|name| code(line).contains(&format!("log::{name}")))?;
        Some(format!("logs by {found} and not by say!"))
    })
}

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

fn long_files(text: &str, max: usize) -> Findings {
    let len = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    if len > max { vec![(len, format!("{len} lines before its tests"))] } else { Vec::new() }
}

/// The marks that neither the compiler nor clippy finds. They are written in halves, so that this
/// file passes its own rule.
fn leftovers(text: &str) -> Findings {
    const MARKS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];
    find(text, |line| {
        MARKS.iter().find(|mark| line.contains(**mark)).map(|mark| format!("{mark} is left"))
    })
}

/// The modules that crate docs list: the first words of the block under "The modules".
fn listed(docs: &str) -> Vec<String> {
    let section = docs.split("# The modules\n").nth(1).unwrap_or_default();
    let lines = fenced(section, "```text");
    let names = lines.lines().filter(|line| !line.contains("----"));
    names.filter_map(|line| line.split_whitespace().next().map(String::from)).collect()
}

/// The modules without a paragraph, or without a mention if they are files of another module.
fn unmapped<'a>(map: &str, modules: impl Iterator<Item = &'a str>) -> Vec<String> {
    let named = |name: &str| match name.contains('/') {
        true => map.contains(&format!("`{name}`")),
        false => map.contains(&format!("**`{name}`**")),
    };
    modules.filter(|name| !named(name)).map(|name| format!("{name} is not in the map")).collect()
}

fn no_header(text: &str) -> Findings {
    if text.starts_with("//! ") { Vec::new() } else { vec![(1, String::from("no `//!`"))] }
}

/// Log lines that do not begin with what they are about, and warnings that name no cure. A reason, an
/// error and a warning of the options have their own form, and are not looked into.
fn formless_logs(text: &str) -> Findings {
    const SUBJECTS: [&str; 7] = [
        "listener \\\"",
        "connector \\\"",
        "{label}: ",
        "{}: ",
        "reactor: ",
        "shard {shard}: ",
        "{error}",
    ];
    const CURES: [&str; 4] = ["; ", "{reason}", "{warning}", "{refused}"];
    let mut found = Findings::new();
    for level in ["Error", "Warn", "Info", "Debug", "Trace"] {
        for (at, call) in text.match_indices("say!(") {
            let rest = text[at + call.len()..].trim_start();
            let Some(rest) = rest.strip_prefix(level) else { continue };
            let line = string(rest.trim_start_matches(',').trim_start());
            let has = |parts: &[&str]| parts.iter().any(|part| line.contains(part));
            let number = 1 + text[..at].matches('\n').count();
            if !SUBJECTS.iter().any(|subject| line.starts_with(subject)) {
                found.push((number, String::from("the log line does not say what it is about")));
            }
            if level == "Warn" && !has(&CURES) {
                found.push((number, String::from("the warning names no cure")));
            }
        }
    }
    found
}

/// The string that a text begins with, without its quotes.
fn string(text: &str) -> &str {
    let inner = text.strip_prefix('"').unwrap_or_default();
    let mut escaped = false;
    let end = inner.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    &inner[..end.unwrap_or_default()]
}

/// Code that repeats the state in `life`: a flag or a mark for a stage, a separate deadline, or a
/// check for the handler in place of a stage. An assertion may compare the two.
fn life_elsewhere(text: &str) -> Findings {
    const CARRIERS: [&str; 7] =
        ["CLOSING", "LINGERING", "EOF", "BROKEN", "CLOSE_DUE", "FORCED", "close_at"];
    find(text, |line| {
        let code = code(line);
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let carrier = words.find(|word| CARRIERS.contains(word));
        let asks = ["handler.is_some()", "handler.is_none()"]
            .into_iter()
            .find(|asked| code.contains(asked) && !code.contains("debug_assert"));
        carrier.or(asks).map(|found| format!("{found} says what `life` says"))
    })
}

/// Handlers of events that never take the default action: a peer that has left would hold its slot.
/// A handler made of closures has `.info(..)`.
fn forgetful_handlers(text: &str) -> Findings {
    let mut findings = Findings::new();
    for (start, open, close) in [("fn handle_info", '{', '}'), (".info(", '(', ')')] {
        for (at, _) in text.match_indices(start) {
            let from = &text[at..];
            let head = from.find(open).unwrap_or(from.len());
            let mut depth = 0;
            let end = from[head..].find(|c: char| {
                depth += i32::from(c == open) - i32::from(c == close);
                depth == 0
            });
            let body = &from[head..head + end.unwrap_or(from.len() - head)];
            let is_closure = open == '{' || body.contains('|');
            let passes_on = ["default_action(", ".handle_info(info"];
            if is_closure && !passes_on.iter().any(|call| body.contains(call)) {
                let line = text[..at].matches('\n').count() + 1;
                findings.push((line, String::from("it never takes the default action")));
            }
        }
    }
    findings
}

/// Calls of `Read` and `Write`. The calls of locks have no arguments, and are allowed.
fn stream_calls(text: &str) -> Findings {
    const CALLS: [&str; 10] = [
        "read",
        "read_exact",
        "read_to_end",
        "read_to_string",
        "read_vectored",
        "write",
        "write_all",
        "write_gathered",
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
    let named = header.iter().any(|line| line.contains("cargo run --release --example "));
    if named {
        Vec::new()
    } else {
        vec![(1, String::from("the header does not say how to run it"))]
    }
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

/// All Rust files below these directories. Directories that a package leaves out may be missing.
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

/// Fails with a list of everything that is wrong, as `path:line: what`.
#[track_caller]
fn hold(files: &[Source], rule: impl Fn(&str) -> Findings) {
    let findings: Vec<String> = files
        .iter()
        .flat_map(|Source { path, text }| {
            rule(text).into_iter().map(move |(line, what)| format!("{path}:{line}: {what}"))
        })
        .collect();
    none(findings);
}

/// Fails with a list of everything that is wrong.
#[track_caller]
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn graph() -> &'static Graph {
    static GRAPH: LazyLock<Graph> = LazyLock::new(|| {
        let files = sources(&["src"]);
        Graph::of(files.iter().map(|file| (file.path.as_str(), file.text.as_str())))
    });
    &GRAPH
}

fn find(text: &str, rule: impl Fn(&str) -> Option<String>) -> Findings {
    let numbered = (1..).zip(text.lines());
    numbered.filter_map(|(number, line)| Some((number, rule(line)?))).collect()
}

/// A line without its comment. A `//` in a string counts as a comment; this harms no rule.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The top-level module of a file in `src`.
fn module(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap_or(path);
    path.split(['/', '.']).next().unwrap_or_default()
}

/// The example whose root is this file.
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
fn long_files_are_found() {
    assert_eq!(long_files("a\na\na\n", 3), []);
    assert_eq!(long_files("a\na\na\na", 3).len(), 1);
    assert_eq!(long_files("a\na\na\n#[cfg(test)]\nmod tests {\n}\n", 3), []);
    assert_eq!(long_files("a\na\na\n    #[cfg(test)]\n", 3).len(), 1, "not the end of the file");
}

#[test]
fn leftovers_are_found() {
    for halves in [["// FIX", "ME"], ["// XX", "X why?"]] {
        let snippet = format!("fn f() {{\n    {}\n}}", halves.concat());
        assert_eq!(leftovers(&snippet).len(), 1, "{snippet}");
    }
    assert_eq!(leftovers("fn f() {}"), []);
}

#[test]
fn missing_headers_are_found() {
    assert_eq!(no_header("use std::fmt;\n").len(), 1);
    assert_eq!(no_header("//! The wheel.\n"), []);
    assert_eq!(no_command("//! An example.\n// cargo run --release --example a\n").len(), 1);
    assert_eq!(no_command("//! An example.\n//! cargo run --release --example a\n"), []);
}

/// The graph of a crate with this `lib.rs` and these other files.
fn drawn(root: &str, files: &[(&str, &str)]) -> Graph {
    let root = format!("{root}\n// Pure from here on.\n{PURE}");
    let files = files.iter().copied();
    let pure = PURE.lines().map(|line| line.trim_start_matches("mod ").trim_end_matches(';'));
    let pure: Vec<String> = pure.map(|name| format!("src/{name}.rs")).collect();
    let empty = pure.iter().map(|path| (path.as_str(), ""));
    Graph::of(empty.chain([("src/lib.rs", root.as_str())]).chain(files))
}

const PURE: &str = "mod reason;\nmod wheel;\n";
const THREE: &str = "mod a;\nmod b;\nmod c;\n";

#[test]
fn circles_are_found() {
    let two = [("src/a.rs", "use crate::b::B;"), ("src/b.rs", "fn f(_: crate::a::A) {}")];
    assert_eq!(drawn(THREE, &two).circles(), ["2 modules: a -> b -> a"]);

    let three = [
        ("src/a.rs", "use crate::{b::{B, self}};"),
        ("src/b.rs", "fn f() {\n    crate::c::g::<u8>()\n}"),
        ("src/c.rs", "pub use super::a as first;"),
    ];
    assert_eq!(drawn(THREE, &three).circles(), ["3 modules: a -> b -> c -> a"]);

    let re_export = [
        ("src/a.rs", "mod inner;\npub use inner::Item;"),
        ("src/a/inner.rs", "use crate::b::B;"),
        ("src/b.rs", "use crate::a::Item;"),
    ];
    assert_eq!(drawn(THREE, &re_export).circles(), ["3 modules: a -> a/inner -> b -> a"]);
    let root = format!("{THREE}pub use b::B as Renamed;\nmod all {{ pub use crate::c::*; }}");
    let through_root = [
        ("src/a.rs", "use crate::Renamed;"),
        ("src/b.rs", "type B = crate::all::C;"),
        ("src/c.rs", "use crate::a::A;"),
    ];
    let graph = drawn(&root, &through_root);
    assert_eq!(graph.lost(), ["src/b.rs:1: names crate::all::C, which leads to no module"]);
    let root = root.replace("c::*", "c::C");
    assert_eq!(drawn(&root, &through_root).circles(), ["3 modules: a -> b -> c -> a"]);

    let siblings = [
        ("src/a.rs", "mod x;\nmod y;"),
        ("src/a/x.rs", "use super::y::Y;"),
        ("src/a/y.rs", "mod deep;"),
        ("src/a/y/deep.rs", "impl X for super::super::x::X {}"),
    ];
    assert!(drawn(THREE, &siblings).circles().is_empty(), "files of a folder are free");
    let siblings = [siblings.as_slice(), &[("src/a/y.rs", "use self::deep::D;")]].concat();
    let expected = ["3 modules: a/x -> a/y -> a/y/deep -> a/x"];
    assert_eq!(drawn(THREE, &siblings).circles(), expected);

    let parent = [("src/a.rs", "mod x;\nfn f() -> x::X {}"), ("src/a/x.rs", "use super::A;")];
    assert_eq!(drawn(THREE, &parent).circles(), ["2 modules: a -> a/x -> a"]);
    let alias = [
        ("src/a.rs", "fn f() { other::inner::g() }\nuse crate::b as other;"),
        ("src/b/inner.rs", "use super::super::a::A;"),
    ];
    let expected = ["2 modules: a -> b/inner -> a"];
    assert_eq!(drawn(THREE, &[&alias[..], &[("src/b.rs", "")]].concat()).circles(), expected);
}

#[test]
fn arrows_upwards_are_found() {
    let found = |text: &str| {
        let files = [("src/a.rs", ""), ("src/b.rs", text), ("src/c.rs", ""), ("src/b/x.rs", "")];
        let graph = drawn(&format!("{THREE}pub use a::Item;"), &files);
        (graph.upward(), graph.lost())
    };
    for bad in [
        "use crate::a::A;",
        "pub(crate) use super::a;",
        "use {crate::c::C, crate::a};",
        "use crate::{\n    a::A,\n    c,\n};",
        "use crate::Item;",
        "fn f(_: super::Item) {}",
        "fn f() -> usize {\n    x.len() as crate::a::Size\n}",
        "fn f() {\n    let all = [..crate::a::END];\n}",
        "struct S(pub (crate::a::A, u8));",
        "type All = Vec<crate::a::A>;",
        "#[derive(crate::a::Derive)]\nstruct S;",
        "macro_rules! m {\n    () => { $crate::a::f() };\n}",
        "fn f() {\n    'a: loop {\n        crate::a::f();\n    }\n}",
        "fn f<'a>(_: &'a str) {\n    let _ = (b'\"', '\\\"', '\\''); crate::a::f('\\u{22}');\n}",
        "impl<'a> crate::a::Trait<'a> for S {}",
        "mod inner {\n    use super::super::a::A;\n}",
        "const C: char = '\"'; use crate::a::A; const D: char = '\"';",
        "const S: &str = r#\"\" \\\"#; use crate::a::A;",
        "#[cfg(not(test))]\nuse crate::a::A;",
        "#[cfg(any(test, loom))]\nuse crate::a::A;",
        "#[cfg(test)]\nmod tests {\n    use super::*;\n}\nuse crate::a::A;",
        "#[cfg(test)]\nuse crate::c::{C, D};\nuse crate::a::A;",
    ] {
        let (upward, lost) = found(bad);
        assert_eq!((upward.len(), lost), (1, Vec::new()), "{bad}");
        assert!(upward[0].contains(": b -> a, which is above it"), "{}", upward[0]);
    }
    for good in [
        "use crate::c::C;",
        "use x::X;",
        "use super::b::x::X;",
        "// use crate::a::A;",
        "/* use /* super::a */ crate::a::A; */",
        "//! [`A`](crate::a::A)",
        "const S: &str = \"\\\"crate::a::A\";",
        "const S: &[u8] = br#\"\"crate::a::A\"#;",
        "const S: &str = r\"\\\"; // crate::a::A",
        "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}",
        "#[cfg(all(test, not(loom)))]\nmod tests {\n    use crate::a::A;\n}",
        "struct S {\n    #[cfg(test)]\n    a: crate::a::A,\n    b: u8,\n}",
        "pub(in crate::a) fn f() {}",
        "mod a {\n    pub fn f() {}\n}\nfn g() { self::a::f(); }",
    ] {
        assert_eq!(found(good), (Vec::new(), Vec::new()), "{good}");
    }
    let undeclared = drawn(THREE, &[("src/d.rs", "")]);
    assert_eq!(undeclared.lost(), ["src/d.rs: src/lib.rs does not declare it"]);
    assert_eq!(drawn(THREE, &[("src/a.rs", "use crate::*;")]).lost().len(), 1);
}

#[test]
fn impurities_are_found() {
    let found = |text: &str| drawn(THREE, &[("src/c.rs", ""), ("src/wheel.rs", text)]).impure();
    for bad in [
        "use mio::Token;",
        "use std::time::Instant;",
        "use std::time::{\n    Duration,\n    Instant,\n};",
        "use std::{fmt, io};",
        "use std::{\n    fmt,\n    net::SocketAddr,\n};",
        "pub use std::io::Read;",
        "fn f(e: std::io::Error) {}",
        "fn f(e: ::std::fs::File) {}",
        "use ::std::thread;",
        "use std::io::ErrorKind;",
        "use std::*;",
        "fn now() -> Instant {}",
        "fn now() {\n    core::time::Instant::now()\n}",
        "use crate::c::C;",
    ] {
        assert_eq!(found(bad).len(), 1, "{bad}");
    }
    for good in [
        "use std::time::Duration;",
        "use crate::reason::CloseReason;",
        "//! No `mio`, no `Instant`, no `std::io`.",
        "/// See [`CloseReason::Io`](crate::CloseReason::Io).",
        "#[cfg(test)]\nmod tests {\n    use std::io;\n}",
    ] {
        assert_eq!(found(good), [""; 0], "{good}");
    }
    let kind = "use std::io::ErrorKind;";
    assert_eq!(drawn(THREE, &[("src/reason.rs", kind)]).impure(), [""; 0], "is data there");
    assert_eq!(drawn(THREE, &[("src/reason.rs", "use std::io::Error;")]).impure().len(), 1);

    // Over two edges: through a file of the module, and through a re-export.
    let transitive = [
        ("src/wheel.rs", "mod level;"),
        ("src/wheel/level.rs", "use crate::Item;"),
        ("src/a.rs", "use super::b;"),
        ("src/b.rs", "use std::net::SocketAddr;"),
    ];
    let graph = drawn(&format!("{THREE}pub use a::Item;"), &transitive);
    assert_eq!(graph.impure(), ["wheel/level -> a, which is not pure"]);
    let direct = [
        ("src/wheel.rs", "mod level;\nuse level::Level;"),
        ("src/wheel/level.rs", "use crate::b::B;"),
        ("src/b.rs", "use std::net::SocketAddr;"),
    ];
    let found = drawn(THREE, &direct).impure();
    let expected = "wheel -> wheel/level -> b, which is not pure and names std::net::SocketAddr";
    assert!(found.contains(&expected.into()), "{found:?}");
}

#[test]
fn missing_modules_are_found() {
    let docs = "# Rooms\n```text\n  c  first\n```\n# The modules\n```text\n  a  one: b, c\n";
    assert_eq!(listed(&format!("{docs}  ---- below ----\n  b\n```\n")), ["a", "b"]);
    let map = "**`a`** is one, and `a/x` a file of it; `b` has no paragraph.";
    let modules = ["a", "a/x", "a/y", "b"].into_iter();
    assert_eq!(unmapped(map, modules), ["a/y is not in the map", "b is not in the map"]);
}

#[test]
fn repeats_of_the_life_state_are_found() {
    for bad in [
        "        CLOSING = 11,",
        "if peer.is_marked(Marks::FORCED) {",
        "    close_at: Tick,",
        "if self.handler.is_none() {",
    ] {
        assert_eq!(life_elsewhere(bad).len(), 1, "{bad}");
    }
    for good in [
        "debug_assert_eq!(self.handler.is_some(), self.conn.life().has_handler());",
        "// the peer sent EOF",
        "let closing = life.stage();",
    ] {
        assert_eq!(life_elsewhere(good), [], "{good}");
    }
}

#[test]
fn forgetful_handlers_are_found() {
    let (head, rest) =
        ("fn handle_info(&mut self, info: Info) -> Action {", "}\nother.default_action()");
    for bad in [
        format!("{head} match info {{ _ => Action::Continue }} {rest}"),
        format!("{head} Action::Continue {rest}"),
        String::from("Actor::echo(trace).info(|_, _| Action::Continue)"),
        String::from("Actor::echo(trace).info(move |info, _| act(info)).end(default_action())"),
    ] {
        assert_eq!(forgetful_handlers(&bad).len(), 1, "{bad}");
    }
    for good in [
        format!("{head} match info {{ other => other.default_action() }} {rest}"),
        format!("{head} self.inner.handle_info(info, ctx) {rest}"),
        format!("{head} match info {{ other => self.replies.default_action(&other, ctx) }} {rest}"),
        String::from("Script::new().info(|info, _| info.default_action())"),
        String::from("Script::new().info(drop_message)"),
    ] {
        assert_eq!(forgetful_handlers(&good), [], "{good}");
    }
}

#[test]
fn unguarded_lines_are_found() {
    for bad in ["    log::error!(\"{error}\");", "if slow { log::log!(level, \"slow\") }"] {
        assert_eq!(unguarded_lines(bad).len(), 1, "{bad}");
    }
    for good in ["say!(Warn, \"slow\");", "// log::warn! asks the logger", "log::max_level()"] {
        assert_eq!(unguarded_lines(good), [], "{good}");
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

#[test]
fn a_log_line_without_subject_or_cure_is_found() {
    for bad in [
        "say!(Warn, \"{name}: {peer} is slow; raise max_queued\");",
        "say!(Warn, \"listener \\\"{name}\\\": peer {peer}: is slow\");",
        "say!(\n    Error, \"cannot wake: {error}\"\n);",
        "say!(Info, \"{}\", text);",
    ] {
        assert_eq!(formless_logs(bad).len(), 1, "{bad}");
    }
    for good in [
        "say!(\n    Warn, \"listener \\\"{name}\\\": is slow; \\\n     raise it\",\n);",
        "say!(Error, \"reactor: cannot be woken: {error}\");",
    ] {
        assert_eq!(formless_logs(good), [], "{good}");
    }
}
