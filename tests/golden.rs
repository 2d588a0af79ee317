//! What users and their tools rely on, compared with a committed copy: the OpenAPI description, the
//! help texts, and the names of the metrics.
//!
//! A difference is either a mistake or a change that users will see. To accept it:
//!
//! ```sh
//! UPDATE_GOLDEN=1 cargo test --test golden
//! ```
//!
//! and review the difference with git.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode, Uri};
use common::in_process::InProcess;
use common::repository_path;
use serde_json::json;

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

/// Compares `found` with `tests/golden/<name>`, or writes it there.
fn assert_golden(name: &str, found: &str) {
    let path = repository_path("tests/golden").join(name);
    if is_update() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
        return;
    }
    // A checkout on Windows may have turned the line ends.
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_default()
        .replace("\r\n", "\n");
    if expected == found {
        return;
    }
    let line = expected
        .lines()
        .zip(found.lines())
        .take_while(|(left, right)| left == right)
        .count();
    let show = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    panic!(
        "tests/golden/{name} differs from line {} on:\n  expected {}\n  found    {}\n\
         If the change is meant, run `UPDATE_GOLDEN=1 cargo test --test golden` and commit the file.",
        line + 1,
        show(&expected),
        show(found)
    );
}

#[test]
fn the_openapi_description_is_the_committed_one() {
    let mut found = bellwether::serve::http::openapi_json().unwrap();
    found.push('\n');
    assert_golden("openapi.json", &found);
}

#[test]
fn the_help_texts_are_the_committed_ones() {
    // Given the command and its subcommands, found in the help texts themselves
    let mut texts = BTreeMap::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = open.pop() {
        let text = help(&command);
        for subcommand in subcommands(&text) {
            let mut longer = command.clone();
            longer.push(subcommand);
            open.push(longer);
        }
        let name = std::iter::once("bellwether").chain(command.iter().map(String::as_str));
        texts.insert(format!("{}.txt", name.collect::<Vec<_>>().join("_")), text);
    }
    // Then there is a file for each, and none for a command that is gone
    let folder = repository_path("tests/golden/help");
    for entry in std::fs::read_dir(&folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if texts.contains_key(&name) {
            continue;
        }
        assert!(
            is_update(),
            "tests/golden/help/{name}: there is no such command; remove the file"
        );
        std::fs::remove_file(&path).unwrap();
    }
    for (name, text) in &texts {
        assert_golden(&format!("help/{name}"), text);
    }
}

/// The help text of a subcommand, without anything of this machine in it.
fn help(command: &[String]) -> String {
    let mut process = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    process
        .args(command)
        .arg("--help")
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BELLWETHER_") {
            process.env_remove(name);
        }
    }
    let output = process.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} --help: {}",
        output.status
    );
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The names listed under "Commands:".
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_metrics_are_the_committed_ones() {
    // Given a server that has done each kind of work once
    let server = InProcess::start().with_customer();
    let score = json!({"customer_id": "C-1", "explain": 2});
    let outcome = json!({"customer_id": "C-1", "outcome": "churn"});
    let event = json!({"event_id": "1", "event": "ticket", "customer_id": "C-1"});
    for (path, body) in [
        ("/v1/score", score),
        ("/v1/outcomes", outcome),
        ("/v1/events", event),
    ] {
        let answer = server.send_json(Method::POST, path, &body);
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    }
    // When its metrics are read, once the ledger's threads have counted what they wrote
    let deadline = Instant::now() + Duration::from_secs(60);
    let found = loop {
        let answer = server.send(Method::GET, Uri::from_static("/metrics"), Vec::new());
        assert_eq!(answer.status, StatusCode::OK);
        let names = metric_names(&answer.text());
        let ledger_has_counted = [
            "bellwether_ledger_rows_total",
            "bellwether_ledger_sync_seconds",
        ]
        .iter()
        .all(|name| names.contains(name));
        if ledger_has_counted || Instant::now() > deadline {
            break names;
        }
        std::thread::yield_now();
    };
    // Then they are those that dashboards and alerts may rely on
    assert_golden("metrics.txt", &found);
}

/// One line for each metric: its name, its type and its labels, sorted.
fn metric_names(exposition: &str) -> String {
    let mut metrics: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|declared| declared.split_once(' '))
        {
            metrics.insert(name, (kind, BTreeSet::new()));
        }
    }
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let Some((sample, labels)) = line.split_once('{') else {
            continue;
        };
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts
            .iter()
            .find_map(|part| sample.strip_suffix(part))
            .unwrap_or(sample);
        let name = if metrics.contains_key(sample) {
            sample
        } else {
            base
        };
        let Some((_, names)) = metrics.get_mut(name) else {
            continue;
        };
        // A label's value may hold anything but a bare quote, so the names are what stands
        // between a quote (or the start) and `="`.
        for part in labels.split("=\"") {
            let label = part.rsplit(['"', ',']).next().unwrap_or_default();
            let is_name =
                !label.is_empty() && label.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_name && label != "le" && labels.contains(&format!("{label}=\"")) {
                names.insert(label);
            }
        }
    }
    let mut text = String::new();
    for (name, (kind, labels)) in metrics {
        let labels: Vec<&str> = labels.into_iter().collect();
        text.push_str(&format!("{name} {kind} {{{}}}\n", labels.join(", ")));
    }
    text
}
