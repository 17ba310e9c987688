//! The layers of the server's source: which folder imports which. A new edge has to be put into the table, and one that goes
//! up is not taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The folders and files under `src/`, lowest first: each may import those before it, if the table has the edge.
const LAYERS: [(&str, &[&str]); 19] = [
    ("types", &[]),
    ("durations", &[]),
    ("log", &[]),
    ("store", &[]),
    ("config", &["types"]),
    ("audit", &["config"]),
    ("socket", &["types"]),
    ("security", &["config", "socket", "types"]),
    ("state", &["log", "store", "types"]),
    ("raft", &["log"]),
    ("lease", &["state"]),
    ("watch", &["durations", "state"]),
    ("node", &["config", "durations", "lease", "log", "raft", "state", "store", "types", "watch"]),
    ("peer", &["config", "lease", "node", "raft", "security", "socket", "state", "types"]),
    ("api", &["audit", "config", "lease", "node", "peer", "security", "state", "types", "watch"]),
    ("http", &["api", "config", "types"]),
    ("net", &["api", "config", "http", "node", "security", "socket", "types"]),
    ("monitor", &["api", "config", "node", "peer", "security", "state", "types"]),
    ("server", &["api", "audit", "config", "http", "lease", "monitor", "net", "node", "peer", "security", "state"]),
];

/// An import: what imports, what is imported, and where.
type Import = (String, String, String);

/// The part of a source that is compiled into the program: tests come last in a file.
fn product(source: &str) -> &str {
    source.split_once("#[cfg(test)]\nmod tests").map_or(source, |(product, _)| product)
}

/// Whether a file is compiled for tests only.
fn is_of_tests(path: &Path) -> bool {
    const FILES: [&str; 5] = ["tests.rs", "scenarios.rs", "traces.rs", "test_certs.rs", "flag_tests.rs"];
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    FILES.contains(&name) || name == "etcd_tests.rs" || path.components().any(|part| part.as_os_str() == "tests")
}

/// The modules behind each `crate::` of a source, with their lines.
fn imported(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: Vec<&str> = source.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)).collect();
    let code = code.join("\n");
    for (at, matched) in code.match_indices("crate::") {
        let is_a_path = !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        if !is_a_path {
            continue;
        }
        let line = code[..at].lines().count().max(1);
        let rest = &code[at + matched.len()..];
        match rest.strip_prefix('{') {
            None => found.push((line, word(rest))),
            Some(group) => found.extend(first_words(group).into_iter().map(|name| (line, name))),
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect()
}

/// The first word of each part of a group of imports that stands at its top.
fn first_words(group: &str) -> Vec<String> {
    let (mut depth, mut part, mut words) = (0, String::new(), Vec::new());
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => words.push(word(std::mem::take(&mut part).trim_start())),
            letter if depth == 0 => part.push(letter),
            _ => {}
        }
    }
    words.push(word(part.trim_start()));
    words
}

/// What is wrong with imports: edges that the table does not have, and edges of the table that nothing uses.
fn broken(imports: &[Import]) -> Vec<String> {
    let table: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (from, to, place) in imports {
        match table.get(&**from) {
            None => wrong.push(format!("{place}: `{from}` is no layer of the table")),
            Some(below) if below.contains(&&**to) => drop(used.insert((from.as_str(), to.as_str()))),
            Some(_) => wrong.push(format!("{place}: `{from}` must not import `{to}`")),
        }
    }
    for (from, below) in LAYERS {
        let unused = below.iter().filter(|to| !used.contains(&(from, **to)));
        wrong.extend(unused.map(|to| format!("the table lets `{from}` import `{to}`, and nothing does")));
    }
    wrong
}

fn imports_of(folder: &Path) -> Vec<Import> {
    let (mut open, mut imports) = (vec![folder.to_owned()], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let inside = path.strip_prefix(folder).expect("it is inside");
        let layer = inside.iter().next().and_then(|part| part.to_str()).expect("a name").trim_end_matches(".rs");
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        // They hold the layers together, or check them.
        if !is_source || matches!(layer, "lib" | "main" | "golden") || is_of_tests(inside) {
            continue;
        }
        let source = fs::read_to_string(&path).expect("text");
        for (line, to) in imported(product(&source)) {
            if to != layer {
                imports.push((layer.to_owned(), to, format!("{}:{line}", inside.display())));
            }
        }
    }
    imports
}

#[test]
fn every_layer_imports_only_what_is_below_it() {
    let wrong = broken(&imports_of(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_goes_down() {
    for (at, (layer, below)) in LAYERS.iter().enumerate() {
        for lower in *below {
            assert!(LAYERS[..at].iter().any(|(name, _)| name == lower), "{layer} -> {lower}");
        }
    }
}

#[test]
fn an_import_that_goes_up_is_found() {
    let source = "use crate::{\n    config::{Url, server},\n    server::{Gate, api::x},\n};\n// crate::http\nfn f() { crate::api::g() }";
    let found: Vec<String> = imported(source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["config", "server", "api"]);
    let imports = vec![("state".to_owned(), "server".to_owned(), "state/x.rs:3".to_owned())];
    assert!(broken(&imports).contains(&"state/x.rs:3: `state` must not import `server`".to_owned()));
}
