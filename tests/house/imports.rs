//! The import graph of the modules below `src`, read from their text: which file names which.
//!
//! Every path in code counts, not only those in a `use`. Comments, strings and tests do not count. A
//! path through a re-export in `lib.rs` leads to the module that `lib.rs` names. A path through any
//! other re-export leads to the module that contains it, and that module's own edges lead on: so a
//! cycle through a re-export is found as a cycle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// External names that no pure module may use: sockets, clocks, input and output.
const IMPURE: [&str; 4] = ["mio", "socket2", "Instant", "SystemTime"];
const IMPURE_PATHS: [&str; 7] = ["io", "net", "fs", "thread", "os", "env", "process"];
/// The one exception: the kind of an error is data, and one module keeps it in a reason.
const KIND: (&str, &str) = ("reason", "std::io::ErrorKind");
/// The comment in `lib.rs` above the first pure module.
const PURE_FROM: &str = "// Pure from here on";

/// The modules of a crate, one for each file, and the edges between them.
pub(crate) struct Graph {
    /// The top-level modules, as `lib.rs` orders them.
    order: Vec<String>,
    /// The pure ones among them.
    pure: BTreeSet<String>,
    /// All modules, by name: `peer`, `peer/input`.
    modules: BTreeMap<String, Module>,
    /// What has no place in the graph: paths that lead to no module, and modules that are not
    /// declared.
    lost: Vec<String>,
}

#[derive(Default)]
struct Module {
    path: String,
    /// The modules that it names, and the first line that does.
    names: BTreeMap<String, usize>,
    /// The impure names in it, and their lines.
    impure: Vec<(usize, String)>,
}

impl Graph {
    /// The graph of these files: paths from the root of the crate, and texts.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files: BTreeMap<&str, &str> = files.into_iter().filter(|(p, _)| !is_test(p)).collect();
        let root = files.get("src/lib.rs").copied().unwrap_or_default();
        let tokens = tokens(root);
        let pure_from = root.lines().position(|line| line.starts_with(PURE_FROM));
        let (mut order, mut pure) = (Vec::new(), BTreeSet::new());
        for (line, name) in declared(&tokens) {
            if pure_from.is_some_and(|from| line > from) {
                pure.insert(name.clone());
            }
            order.push(name);
        }
        let known = files.keys().filter_map(|path| module(path)).collect();
        let mut graph = Self { order, pure, modules: BTreeMap::new(), lost: Vec::new() };
        if pure_from.is_none() {
            graph.lost.push(format!("src/lib.rs: no comment says \"{PURE_FROM}\""));
        }
        let exports = Reader::new(&[], &known).read(&tokens).exports;
        for (path, text) in &files {
            let Some(name) = module(path) else { continue };
            graph.add(path, &name, text, &known, &exports);
        }
        graph
    }

    fn add(&mut self, path: &str, name: &str, text: &str, known: &Known, exports: &Exports) {
        let at: Vec<String> = name.split('/').map(String::from).collect();
        if !self.order.contains(&at[0]) {
            self.lost.push(format!("{path}: src/lib.rs does not declare it"));
        }
        let read = Reader::new(&at, known).read(&tokens(text));
        let mut module = Module { path: path.to_owned(), ..Module::default() };
        for (line, segments) in read.paths {
            match resolve(&segments, known, exports) {
                Some(target) if target == name => {}
                Some(target) => {
                    module.names.entry(target).or_insert(line);
                }
                None => self.lost.push(format!(
                    "{path}:{line}: names crate::{}, which leads to no module",
                    segments.join("::")
                )),
            }
        }
        module.impure = read.foreign;
        module.impure.retain(|(_, what)| (name, what.as_str()) != KIND);
        self.modules.insert(name.to_owned(), module);
    }

    pub(crate) fn order(&self) -> &[String] {
        &self.order
    }

    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    pub(crate) fn pure(&self) -> &BTreeSet<String> {
        &self.pure
    }

    /// What has no place in the graph, so that no edge is missed in silence.
    pub(crate) fn lost(&self) -> Vec<String> {
        self.lost.clone()
    }

    /// For each group of modules that reach each other: its size and its shortest cycle.
    pub(crate) fn circles(&self) -> Vec<String> {
        let knots = self.knots().into_iter().filter(|knot| knot.len() > 1);
        knots.map(|knot| format!("{} modules: {}", knot.len(), self.circle(&knot))).collect()
    }

    fn circle(&self, knot: &[&str]) -> String {
        let circles = knot.iter().flat_map(|from| {
            let next = self.modules[*from].names.keys();
            let ways = next.filter_map(|next| self.way(next, |name| name == *from));
            ways.map(|way| [vec![*from], way].concat())
        });
        circles.min_by_key(Vec::len).unwrap_or_default().join(" -> ")
    }

    /// Edges from a top-level module, or a file of it, to a module that `lib.rs` lists before it.
    pub(crate) fn upward(&self) -> Vec<String> {
        let place = |name: &str| self.order.iter().position(|other| other == top(name));
        let arrows = self.arrows().filter(|(from, to, _)| place(from) > place(to));
        arrows
            .map(|(from, to, line)| {
                format!("{}:{line}: {from} -> {to}, which is above it", self.modules[from].path)
            })
            .collect()
    }

    /// The impure modules and names that pure modules reach, over any number of edges.
    pub(crate) fn impure(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        for (name, module) in self.modules.iter().filter(|(name, _)| self.is_pure(name)) {
            for (line, what) in &module.impure {
                found.insert(format!("{}:{line}: names {what}", module.path));
            }
            if let Some(way) = self.way(name, |name| !self.is_pure(name)) {
                let last = &self.modules[*way.last().expect("a way has an end")];
                let names = last.impure.iter().map(|(_, what)| format!(" and names {what}")).next();
                let names = names.unwrap_or_default();
                found.insert(format!("{}, which is not pure{names}", way.join(" -> ")));
            }
        }
        found.into_iter().collect()
    }

    /// A summary of the graph in numbers.
    pub(crate) fn in_numbers(&self) -> String {
        let tops: BTreeSet<(&str, &str)> = self
            .arrows()
            .map(|(from, to, _)| (top(from), top(to)))
            .filter(|(from, to)| from != to)
            .collect();
        let longest = self.longest();
        format!(
            "{} modules, {} of them at the top; {} arrows, {} of them between those at the top\n\
             {} levels: {}\n{} circles, {} arrows upwards",
            self.modules.len(),
            self.order.len(),
            self.arrows().count(),
            tops.len(),
            longest.len(),
            longest.join(" -> "),
            self.circles().len(),
            self.upward().len(),
        )
    }

    fn is_pure(&self, name: &str) -> bool {
        self.pure.contains(top(name))
    }

    fn arrows(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        self.modules.iter().flat_map(|(from, module)| {
            module.names.iter().map(move |(to, line)| (from.as_str(), to.as_str(), *line))
        })
    }

    /// The shortest path from a module to a wanted one, both included.
    fn way<'a>(&'a self, from: &'a str, wanted: impl Fn(&str) -> bool) -> Option<Vec<&'a str>> {
        let mut seen = BTreeSet::from([from]);
        let mut ways = VecDeque::from([vec![from]]);
        while let Some(way) = ways.pop_front() {
            let last = way[way.len() - 1];
            if wanted(last) {
                return Some(way);
            }
            for next in self.modules[last].names.keys() {
                if seen.insert(next) {
                    ways.push_back([way.as_slice(), &[next]].concat());
                }
            }
        }
        None
    }

    fn reached<'a>(&'a self, from: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(name) = open.pop() {
            let names = self.modules[name].names.keys().map(String::as_str);
            open.extend(names.filter(|next| reached.insert(next)));
        }
        reached
    }

    /// Groups of modules that reach each other. Most groups have one module.
    fn knots(&self) -> Vec<Vec<&str>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.modules.keys().map(|name| (name.as_str(), self.reached(name))).collect();
        let mut knots: Vec<Vec<&str>> = Vec::new();
        for name in self.modules.keys() {
            let joined = knots.iter_mut().find(|knot| {
                reached[knot[0]].contains(name.as_str()) && reached[name.as_str()].contains(knot[0])
            });
            match joined {
                Some(knot) => knot.push(name),
                None => knots.push(vec![name]),
            }
        }
        knots
    }

    /// The longest path downwards, with each group counted once.
    fn longest(&self) -> Vec<&str> {
        let knots = self.knots();
        let knot = |name: &str| knots.iter().position(|knot| knot.contains(&name));
        // One step from each group, repeated as often as there are groups, so that every path is
        // complete.
        let mut longest: Vec<Vec<&str>> = knots.iter().map(|knot| vec![knot[0]]).collect();
        for _ in 0..knots.len() {
            for (from, to, _) in self.arrows() {
                let (Some(from), Some(to)) = (knot(from), knot(to)) else { continue };
                if from != to && longest[from].len() <= longest[to].len() {
                    longest[from] = [&[knots[from][0]], longest[to].as_slice()].concat();
                }
            }
        }
        longest.into_iter().max_by_key(Vec::len).unwrap_or_default()
    }
}

type Known = BTreeSet<String>;
/// The re-exports of `lib.rs`, by the path under which other modules may name them.
type Exports = BTreeMap<String, Vec<String>>;

/// Whether a whole file is tests.
pub(crate) fn is_test(path: &str) -> bool {
    let named =
        |name| path.ends_with(&format!("/{name}.rs")) || path.contains(&format!("/{name}/"));
    ["tests", "loom_tests"].into_iter().any(named)
}

/// The module of a file. None for the root, which names everything.
fn module(path: &str) -> Option<String> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    (path != "lib").then(|| path.strip_suffix("/mod").unwrap_or(path).to_owned())
}

fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// The module to which a path from the crate's root leads.
fn resolve(segments: &[String], known: &Known, exports: &Exports) -> Option<String> {
    let lengths = (1..=segments.len()).rev();
    let found = lengths.map(|len| segments[..len].join("/")).find(|name| known.contains(name));
    found.or_else(|| {
        let lengths = 1..=segments.len();
        let target = lengths.filter_map(|len| exports.get(&segments[..len].join("::"))).next()?;
        // A name that leads back to the root would cause an endless loop.
        if target == segments { None } else { resolve(target, known, exports) }
    })
}

/// The modules that a file declares without a body, in order.
fn declared(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let modules = tokens.windows(3).filter(|three| three[0].text == "mod" && three[2].text == ";");
    modules.map(|three| (three[1].line, three[1].text.to_owned())).collect()
}

// ---- paths out of tokens ----

/// Reads the paths of one file.
struct Reader<'a> {
    known: &'a Known,
    /// The file's module, and the inline modules that are open, each with its depth.
    at: Vec<String>,
    open: Vec<usize>,
    /// Modules under the names that the file gives them.
    aliases: BTreeMap<String, Vec<String>>,
    found: Found,
}

#[derive(Default)]
struct Found {
    /// Paths from the crate's root.
    paths: Vec<(usize, Vec<String>)>,
    /// External paths and names that are not pure.
    foreign: Vec<(usize, String)>,
    /// The targets of `use`, by the path from the crate's root under which they can be named.
    exports: Exports,
}

/// A path as it is written, and the name that a `use` gives it.
struct Written {
    line: usize,
    segments: Vec<String>,
    alias: Option<String>,
}

impl<'a> Reader<'a> {
    fn new(at: &[String], known: &'a Known) -> Self {
        let (open, aliases) = (Vec::new(), BTreeMap::new());
        Self { known, at: at.to_vec(), open, aliases, found: Found::default() }
    }

    /// Reads the file twice, because a name may be used above its `use`.
    fn read(mut self, tokens: &[Token<'_>]) -> Found {
        self.pass(tokens);
        self.found = Found::default();
        self.pass(tokens);
        self.found
    }

    fn pass(&mut self, tokens: &[Token<'_>]) {
        let (mut depth, mut at) = (0, 0);
        while let Some(token) = tokens.get(at) {
            let text = |at: usize| tokens.get(at).map_or("", |token: &Token<'_>| token.text);
            match token.text {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if self.open.pop_if(|open| *open == depth).is_some() {
                        self.at.pop();
                    }
                }
                "mod" if text(at + 2) == "{" => {
                    self.at.push(text(at + 1).to_owned());
                    self.open.push(depth);
                }
                // A visibility names a module without using it.
                "pub" if text(at + 1) == "(" && text(at + 2) == "in" => {
                    at = group(tokens, at + 1);
                    continue;
                }
                "use" => {
                    let mut written = Vec::new();
                    at = tree(tokens, at + 1, &[], true, &mut written);
                    for path in written {
                        self.used(path);
                    }
                    continue;
                }
                word if is_word(word) && is_head(tokens, at) => {
                    if IMPURE.contains(&word) {
                        self.found.foreign.push((token.line, word.to_owned()));
                    }
                    if text(at + 1) == "::" {
                        let mut written = Vec::new();
                        at = tree(tokens, at, &[], false, &mut written);
                        for path in written {
                            self.named(&path);
                        }
                        continue;
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn used(&mut self, path: Written) {
        let last = path.segments.last().cloned().unwrap_or_default();
        let Some(target) = self.named(&path) else { return };
        let name = path.alias.unwrap_or(last);
        let exported = [self.at.as_slice(), std::slice::from_ref(&name)].concat().join("::");
        if self.known.contains(&target.join("/")) {
            self.aliases.insert(name, target.clone());
        }
        self.found.exports.insert(exported, target);
    }

    /// Records a path. Returns it from the crate's root, if it leads there.
    fn named(&mut self, path: &Written) -> Option<Vec<String>> {
        let whole = path.segments.join("::");
        if let [first, rest @ ..] = path.segments.as_slice()
            && matches!(first.as_str(), "std" | "core")
        {
            let second = rest.first().map_or("*", String::as_str);
            let clock = rest.iter().any(|name| IMPURE.contains(&name.as_str()));
            if second == "*" || IMPURE_PATHS.contains(&second) || clock {
                self.found.foreign.push((path.line, whole));
            }
            return None;
        }
        if let Some(name) = path.segments.iter().find(|name| IMPURE.contains(&name.as_str())) {
            self.found.foreign.push((path.line, name.clone()));
        }
        let target = self.rooted(&path.segments)?;
        self.found.paths.push((path.line, target.clone()));
        Some(target)
    }

    fn rooted(&self, segments: &[String]) -> Option<Vec<String>> {
        let (first, mut rest) = segments.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.at.clone(),
            "super" => self.at[..self.at.len().saturating_sub(1)].to_vec(),
            name => {
                let child = [self.at.as_slice(), std::slice::from_ref(first)].concat();
                let inline = self.known.contains(&child.join("/")).then_some(child);
                inline.or_else(|| self.aliases.get(name).cloned())?
            }
        };
        while let Some((_, more)) = rest.split_first().filter(|(next, _)| *next == "super") {
            target.pop();
            rest = more;
        }
        target.extend(rest.iter().cloned());
        Some(target)
    }
}

/// Whether a path can begin here: not inside another path, and not at a method.
fn is_head(tokens: &[Token<'_>], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].text);
    match before(1) {
        "::" => before(2) != ">" && !is_word(before(2)),
        "." => before(2) == ".",
        _ => true,
    }
}

/// Reads the path, or the tree of paths, that begins at `at`. Returns its end. In a `use` it may get
/// another name.
fn tree(
    tokens: &[Token<'_>],
    mut at: usize,
    before: &[String],
    is_use: bool,
    paths: &mut Vec<Written>,
) -> usize {
    let mut segments = before.to_vec();
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token<'_>| token.text);
    let line = tokens.get(at).map_or(0, |token| token.line);
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    at = tree(tokens, at, &segments, is_use, paths);
                    if text(at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            // The name of `a::{self}` is `a`.
            "self" if !segments.is_empty() => at += 1,
            word if word == "*" || is_word(word) => {
                segments.push(word.trim_start_matches("r#").to_owned());
                at += 1;
            }
            // A path that begins with `::` is external, and so is its first word.
            "::" if segments.is_empty() => {
                at += 1;
                continue;
            }
            // Anything that is not part of a path.
            _ => {
                if segments.len() == before.len() {
                    at += 1;
                }
                break;
            }
        }
        if text(at) != "::" || !(is_word(text(at + 1)) || matches!(text(at + 1), "{" | "*")) {
            break;
        }
        at += 1;
    }
    let alias = (is_use && text(at) == "as").then(|| text(at + 1).to_owned());
    if alias.is_some() {
        at += 2;
    }
    paths.push(Written { line, segments, alias });
    at
}

// ---- tokens out of text ----

/// A word, a sign, or `::`.
#[derive(Clone, Copy)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphanumeric() || first == '_')
}

/// The code of a file, without comments, strings and tests.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '"' => string(rest),
            '\'' => character(rest),
            _ if raw_string(rest).is_some() => raw_string(rest).unwrap_or_default(),
            _ => first.len_utf8(),
        };
        let mut len = len;
        if len == first.len_utf8() && !first.is_whitespace() && first != '\'' {
            if rest.starts_with("r#") && is_word(&rest[2..]) {
                len += 1;
            }
            if is_word(first.encode_utf8(&mut [0; 4])) {
                let word = rest[len..].find(|c: char| !c.is_alphanumeric() && c != '_');
                len = word.map_or(rest.len(), |word| len + word);
            } else if rest.starts_with("::") {
                len = 2;
            }
            tokens.push(Token { line, text: &rest[..len] });
        }
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    without_tests(tokens)
}

/// The length of a block comment, which may contain others.
fn comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        let two = text.as_bytes().get(at..at + 2).unwrap_or_default();
        match two {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

/// The length of a string in quotes.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// The length of a string without escapes.
fn raw_string(text: &str) -> Option<usize> {
    let rest = ["br", "cr", "r"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let body = rest.trim_start_matches('#');
    let end = format!("\"{}", "#".repeat(rest.len() - body.len()));
    let body = body.strip_prefix('"')?;
    let before = text.len() - body.len();
    Some(body.find(&end).map_or(text.len(), |at| before + at + end.len()))
}

/// The length of a character in quotes, or of the quote before a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match inside.next() {
        // The escaped character may be a quote.
        Some('\\') => text.get(3..).and_then(|rest| rest.find('\'')).map_or(1, |end| end + 4),
        Some(one) if inside.next() == Some('\'') => one.len_utf8() + 2,
        _ => 1,
    }
}

/// Leaves out each item after `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_only_for_tests(&tokens[at..]) {
            at = item(&tokens, at);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Whether the tokens begin with an attribute that limits its item to tests.
fn is_only_for_tests(tokens: &[Token<'_>]) -> bool {
    let mut words = tokens.iter().map(|token| token.text);
    let is_attribute = [words.next(), words.next()] == [Some("#"), Some("[")];
    let words: Vec<&str> = words.take_while(|word| *word != "]").collect();
    is_attribute && words.first() == Some(&"cfg") && needs_test(&words).0
}

/// Whether a condition of `cfg` holds only in tests, and its number of words.
fn needs_test(words: &[&str]) -> (bool, usize) {
    let name = words.first().copied().unwrap_or_default();
    if words.get(1) != Some(&"(") {
        return (name == "test", 1);
    }
    let (mut at, mut parts) = (2, Vec::new());
    while at < words.len() && words[at] != ")" {
        if words[at] == "," || words[at] == "=" {
            at += 1;
            continue;
        }
        let (part, len) = needs_test(&words[at..]);
        parts.push(part);
        at += len;
    }
    let needed = match name {
        "cfg" | "all" => parts.contains(&true),
        "any" => !parts.contains(&false),
        _ => false,
    };
    (needed, at + 1)
}

/// The end of the item that begins at `at`, its attributes included.
fn item(tokens: &[Token<'_>], mut at: usize) -> usize {
    const ITEMS: [&str; 15] = [
        "fn", "struct", "enum", "union", "impl", "trait", "mod", "use", "const", "static", "type",
        "unsafe", "async", "extern", "let",
    ];
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token<'_>| token.text);
    while text(at) == "#" {
        at = group(tokens, at + 1);
    }
    let mut head = at;
    if text(head) == "pub" {
        head += 1;
        if text(head) == "(" {
            head = group(tokens, head);
        }
    }
    let is_field = !ITEMS.contains(&text(head));
    while at < tokens.len() {
        match text(at) {
            ";" => return at + 1,
            "," if is_field => return at + 1,
            "}" => return at,
            "{" => {
                at = group(tokens, at);
                // After a `use` with braces the semicolon remains, which is harmless.
                return at;
            }
            "(" | "[" => at = group(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// The end of the group whose bracket opens at `at`.
fn group(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + offset + 1;
        }
    }
    tokens.len()
}
