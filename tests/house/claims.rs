//! The tests that `tests/README.md` names exist: without its test a claim is only an opinion.

use std::fs;
use std::path::{Path, PathBuf};

/// The place and the name of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    place: String,
    test: String,
}

/// The tests in the last column of the table of claims, row by row, and above the breaks. A test
/// without a place has the place of the previous one. Checks of faults are left out: their names are
/// no functions.
fn named(readme: &str) -> Vec<Named> {
    let claims = readme.split("| claim | test |").nth(1).unwrap_or("");
    let rows = claims.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with('|'));
    let cells = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit_once(" | "));
    let breaks = readme.lines().filter_map(|line| line.strip_prefix("#   "));
    let mut all = Vec::new();
    for cell in cells.map(|(_, cell)| cell).chain(breaks) {
        let mut place = "";
        for entry in cell.split(", ") {
            let test;
            (place, test) = match entry.rsplit_once("::").or_else(|| entry.rsplit_once(' ')) {
                Some((at, test)) => (at.trim_matches('`'), test),
                None => (place, entry),
            };
            if test.chars().all(|c| c.is_alphanumeric() || c == '_') {
                all.push(Named { place: place.to_owned(), test: test.to_owned() });
            }
        }
    }
    all
}

/// Files in which the tests of a place may be.
fn files(root: &Path, place: &str) -> Vec<PathBuf> {
    if let Some(path) = place.strip_suffix(".rs") {
        return vec![root.join(place), root.join(path).join("tests.rs")];
    }
    let path = format!("{}.rs", place.replace("::", "/"));
    let members = ["", "examples/dns_tcp/", "examples/soak/"];
    members.iter().map(|member| root.join(format!("{member}tests/{path}"))).collect()
}

/// The tests that are in no such file.
fn missing(root: &Path, all: Vec<Named>) -> Vec<Named> {
    let has = |named: &Named| {
        files(root, &named.place).iter().any(|file| {
            fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {}(", named.test)))
        })
    };
    all.into_iter().filter(|named| !has(named)).collect()
}

#[test]
fn the_tests_of_all_claims_and_breaks_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = named(&fs::read_to_string(root.join("tests/README.md")).unwrap());
    assert!(all.len() > 400, "{} tests are named", all.len());
    assert_eq!(missing(root, all), []);
}

#[test]
fn tests_that_are_missing_are_found() {
    let readme = "| claim | test |\n|---|---|\n\
        | a | house::claims::tests_that_are_missing_are_found, not_there |\n\
        | b | `src/buffer.rs` nor_there |\n\n\
        # a break\n#   scripted::nowhere::at_all\n";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found: Vec<_> = missing(root, named(readme)).into_iter().map(|it| it.test).collect();
    assert_eq!(found, ["not_there", "nor_there", "at_all"]);
}
