//! `bellwether check`: everything a server would load, checked without one.

use clap::Args;

use super::output;
use crate::config::{Config, ConfigArgs, RepositoryConfig};

use crate::ingest::sources::Sources;
use crate::serve::definitions::{check_security, check_store, load_definitions};

/// Check configuration, feature views and every model version, offline
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether check --models models --features features")]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Loads everything and lists it.
///
/// # Errors
/// Every problem, one line each.
pub fn run(args: CheckArgs) -> Result<(), String> {
    let mut config = Config::load(&args.config)?;
    config.strict = true;
    // What the policy leaves out today may get a role tomorrow.
    config.repository = RepositoryConfig::everything();
    check_security(&config)?;
    check_store(&config)?;
    config.rollout.check()?;
    Sources::new(&config.source)?;
    let loaded = load_definitions(&config);
    if args.json {
        let problems: Vec<&str> = loaded
            .as_ref()
            .err()
            .into_iter()
            .flat_map(|e| e.lines())
            .collect();
        output::json(&serde_json::json!({"ok": problems.is_empty(), "problems": problems}))?;
    }
    let (views, repository) = loaded?;
    if args.json {
        return Ok(());
    }
    for view in views.all() {
        let counts = [
            ("request", view.request_columns().len()),
            ("window", view.window_columns().len()),
            ("related", view.related_columns().len()),
            ("derived", view.derived_columns().len()),
        ];
        let stored = view.stored_features().len();
        let mut text = format!("view {}: {stored} stored features", view.name);
        for (word, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            text.push_str(&format!(", {count} {word}"));
        }
        output::line(text);
    }
    for (role, entry) in repository.catalog().with_roles() {
        let binding = match entry.state.as_ref().map(|version| &version.scoring) {
            Ok(Ok(scoring)) => format!("{}, scores view {}", role.word(), scoring.view.name),
            Ok(Err(_)) => "served raw under /v2".to_owned(),
            Err(reason) => reason.clone(),
        };
        output::line(format_args!(
            "model {} version {}: {binding}",
            entry.name, entry.version
        ));
    }
    Ok(())
}
