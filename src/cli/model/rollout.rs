//! `bellwether model shadow|canary|promote|rollback|retire|candidate`: who answers whom, changed on a
//! running server.

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::list::summary;
use super::path_of;
use crate::cli::output;
use crate::cli::remote::{ServerArgs, while_waiting};

/// Which server, why, and how to print what it says.
#[derive(Args)]
pub struct HowArgs {
    /// Why, for the ledger
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print the roles from now on as JSON
    #[arg(long)]
    json: bool,
}

/// Score a version beside the champion; its scores are recorded and answer nobody
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether model shadow churn 3 --reason \"trained on October\""
)]
pub struct ShadowArgs {
    /// Name of the model
    name: String,
    /// The version
    version: u64,
    #[command(flatten)]
    how: HowArgs,
}

/// Have a version answer a share of the customers, always the same ones; or change the share
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether model canary churn 3 --percent 5")]
pub struct CanaryArgs {
    /// Name of the model
    name: String,
    /// The version
    version: u64,
    /// Share of the customers, 0.01 to 100
    #[arg(long, value_name = "PERCENT")]
    percent: f64,
    /// Take it back when its share of failed requests exceeds the champion's by more [0 to 1]
    #[arg(long, value_name = "RATE")]
    max_error_rate: Option<f64>,
    /// Take it back when its p95 is more than this many times the champion's
    #[arg(long, value_name = "TIMES")]
    max_latency_ratio: Option<f64>,
    /// Take it back when its scores are spread otherwise than the champion's: the largest PSI
    #[arg(long, value_name = "PSI")]
    max_score_drift: Option<f64>,
    #[command(flatten)]
    how: HowArgs,
}

/// Have a version answer everyone who names none
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether model promote churn 3 --reason \"canary held for a week\""
)]
pub struct PromoteArgs {
    /// Name of the model
    name: String,
    /// The version
    version: u64,
    #[command(flatten)]
    how: HowArgs,
}

/// End the canary; without one, go back to the champion before this one
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether model rollback churn --reason \"complaints\"")]
pub struct RollbackArgs {
    /// Name of the model
    name: String,
    /// The version that is to be taken back; nothing happens if that is another one by now
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    #[command(flatten)]
    how: HowArgs,
}

/// Take a version out of memory; its files stay
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether model retire churn 1")]
pub struct RetireArgs {
    /// Name of the model
    name: String,
    /// The version
    version: u64,
    #[command(flatten)]
    how: HowArgs,
}

/// End a version's shadow, canary or retirement, or keep it loaded: it answers only when it is named
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether model candidate churn 3")]
pub struct CandidateArgs {
    /// Name of the model
    name: String,
    /// The version
    version: u64,
    #[command(flatten)]
    how: HowArgs,
}

/// # Errors
/// What the server says instead.
pub fn shadow(args: &ShadowArgs) -> Result<(), String> {
    let body = json!({"action": "shadow", "version": args.version});
    ask(&args.name, body, &args.how)
}

/// # Errors
/// What the server says instead.
pub fn canary(args: &CanaryArgs) -> Result<(), String> {
    let mut guardrails = Map::new();
    for (field, value) in [
        ("max_error_rate", args.max_error_rate),
        ("max_latency_ratio", args.max_latency_ratio),
        ("max_score_drift", args.max_score_drift),
    ] {
        if let Some(value) = value {
            guardrails.insert(field.to_owned(), Json::from(value));
        }
    }
    let mut body = json!({"action": "canary", "version": args.version, "percent": args.percent});
    if !guardrails.is_empty() {
        body["guardrails"] = Json::from(guardrails);
    }
    ask(&args.name, body, &args.how)
}

/// # Errors
/// What the server says instead.
pub fn promote(args: &PromoteArgs) -> Result<(), String> {
    let body = json!({"action": "promote", "version": args.version});
    ask(&args.name, body, &args.how)
}

/// # Errors
/// What the server says instead.
pub fn roll_back(args: &RollbackArgs) -> Result<(), String> {
    let mut body = json!({"action": "rollback"});
    if let Some(from) = args.from {
        body["version"] = Json::from(from);
    }
    ask(&args.name, body, &args.how)
}

/// # Errors
/// What the server says instead.
pub fn retire(args: &RetireArgs) -> Result<(), String> {
    let body = json!({"action": "retire", "version": args.version});
    ask(&args.name, body, &args.how)
}

/// # Errors
/// What the server says instead.
pub fn candidate(args: &CandidateArgs) -> Result<(), String> {
    let body = json!({"action": "candidate", "version": args.version});
    ask(&args.name, body, &args.how)
}

fn ask(name: &str, mut body: Json, how: &HowArgs) -> Result<(), String> {
    if let Some(reason) = &how.reason {
        body["reason"] = Json::from(reason.as_str());
    }
    let server = how.server.connect()?;
    let path = path_of(name, "/rollout")?;
    // A version that is not loaded is loaded first.
    let reply = while_waiting("waiting for the server", || server.post_json(&path, &body))?;
    let roles = reply.json()?;
    if how.json {
        return output::json(&roles);
    }
    output::line(summary(&roles));
    Ok(())
}
