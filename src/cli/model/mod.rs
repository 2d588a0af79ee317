//! `bellwether model`: ship a version of a model safely; one file per subcommand.

pub mod compared;
pub mod deploy;
pub mod list;
pub mod rollout;
pub mod validate;

use clap::{Args, Subcommand};

/// Ship a version of a model safely
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether model validate models/churn/2\n  bellwether model deploy churn models/churn/2"
)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Subcommand)]
enum ModelCommand {
    List(list::ListArgs),
    Show(list::ShowArgs),
    Shadow(rollout::ShadowArgs),
    Canary(rollout::CanaryArgs),
    Promote(rollout::PromoteArgs),
    Rollback(rollout::RollbackArgs),
    Retire(rollout::RetireArgs),
    Candidate(rollout::CandidateArgs),
    Validate(validate::ValidateArgs),
    Deploy(deploy::DeployArgs),
}

/// Runs a `model` subcommand.
///
/// # Errors
/// What went wrong.
pub fn run(args: ModelArgs) -> Result<(), String> {
    match args.command {
        ModelCommand::List(args) => list::list(&args),
        ModelCommand::Show(args) => list::show(&args),
        ModelCommand::Shadow(args) => rollout::shadow(&args),
        ModelCommand::Canary(args) => rollout::canary(&args),
        ModelCommand::Promote(args) => rollout::promote(&args),
        ModelCommand::Rollback(args) => rollout::roll_back(&args),
        ModelCommand::Retire(args) => rollout::retire(&args),
        ModelCommand::Candidate(args) => rollout::candidate(&args),
        ModelCommand::Validate(args) => validate::run(&args),
        ModelCommand::Deploy(args) => deploy::run(&args),
    }
}

/// The path of a model, and what is behind it, as it stands in a URL.
///
/// # Errors
/// When there is no name.
fn path_of(name: &str, behind: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("the model's name is empty".to_owned());
    }
    let mut path = "/v1/models/".to_owned();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path.push_str(behind);
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn any_name_is_one_part_of_a_path() {
        let path = path_of("churn 2/ü?#", "/rollout").unwrap();
        assert_eq!(path, "/v1/models/churn%202%2F%C3%BC%3F%23/rollout");
        assert!(path_of("", "").is_err());
    }
}
