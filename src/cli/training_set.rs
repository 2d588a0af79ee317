//! `bellwether ledger training-set`: what came of predictions, or what was known of observations at their
//! time.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::observations::ObservationsArgs;
use super::{observations, output};
use crate::clock;
use crate::config::{Config, ConfigArgs};
use crate::features::views::Views;
use crate::history::labelled::{Question, labelled_champion};
use crate::history::labelled_file::{FileFormat, write_labelled};
use crate::history::outcomes::LabelRule;
use crate::models::repository::Repository;
use crate::models::rollout::journal::State;

/// Write a training set: predictions with what came of them, or observations with what was known then
#[derive(Args)]
#[command(after_help = "Example:\n  \
    bellwether ledger training-set --model churn --data-dir data --output churn.parquet\n\n\
    With --model: one row per prediction of the model that is old enough to have a label, with the\n\
    feature values as served. The label is that of the [label] section in the champion's model.toml.\n\
    bellwether ledger training-set --observations labels.csv --view customer --output train.parquet\n\n\
    With --observations: the rows of a file with the entity's key, a time and whatever else they carry,\n\
    such as a label. Each gets the features as a score at that time would have had them.\n\
    The server may be running.")]
pub struct TrainingSetArgs {
    #[command(flatten)]
    rows: RowsArgs,
    #[command(flatten)]
    ledgers: LedgersArgs,
    #[command(flatten)]
    observed: ObservationsArgs,
    /// The file to write, .parquet or .csv (.arrow for observations); it is replaced
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

/// What the rows are: exactly one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct RowsArgs {
    /// Rows are the predictions of this model, with labels from matured outcomes
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Rows are those of this file (.csv, .parquet or .arrow), with the features known at their time
    #[arg(long, value_name = "FILE")]
    observations: Option<PathBuf>,
}

/// Which ledgers are read, and as of when. Shared with `train --from-ledger`.
#[derive(Args)]
pub struct LedgersArgs {
    /// Configuration file [default: bellwether.toml when it exists]
    #[arg(long, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of a server's ledger; give every replica's [default: data]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_DATA_DIR")]
    data_dir: Vec<PathBuf>,
    /// Model repository [default: models]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_MODELS")]
    models: Option<PathBuf>,
    /// Folder of feature views [default: features]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_FEATURES")]
    features: Option<PathBuf>,
    /// Labels as of this time, RFC 3339: what was received later is not known [default: now]
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// Leave out predictions made before this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// What [`LedgersArgs`] lead to.
pub struct Ledgers {
    pub config: Config,
    pub question: Question,
    pub views: Views,
    pub repository: Repository,
}

impl LedgersArgs {
    /// Reads the configuration; and the data directories of all ledgers.
    ///
    /// # Errors
    /// A configuration file that is wrong.
    pub fn config(&self) -> Result<(Config, Vec<PathBuf>), String> {
        let config = Config::load(&ConfigArgs {
            config: self.config.clone(),
            data_dir: self.data_dir.first().cloned(),
            models: self.models.clone(),
            features: self.features.clone(),
            ..ConfigArgs::default()
        })?;
        let data_dirs = match self.data_dir.is_empty() {
            true => vec![config.data_dir.clone()],
            false => self.data_dir.clone(),
        };
        Ok((config, data_dirs))
    }

    /// Whether what concerns labels only is given.
    pub fn asks_for_labels(&self) -> bool {
        self.as_of.is_some() || self.since.is_some()
    }

    /// Reads the configuration, views and models, and what is asked of the ledgers.
    ///
    /// # Errors
    /// A file that is wrong, or a time that is none.
    pub fn open(self, model: String) -> Result<Ledgers, String> {
        let (config, data_dirs) = self.config()?;
        let time = |flag: &str, text: Option<String>| {
            let time = text.map(|text| clock::from_rfc3339(&text)).transpose();
            time.map_err(|problem| format!("{flag}: {problem}"))
        };
        let question = Question {
            data_dirs,
            model,
            as_of_us: time("--as-of", self.as_of)?.unwrap_or_else(clock::now_us),
            since_us: time("--since", self.since)?,
        };
        let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
        let roles = State::read(&config.data_dir)?.roles;
        let repository =
            Repository::open_with(&config.models, &views, roles, config.repository.clone());
        if let Some(problem) = repository.unreadable() {
            return Err(problem.to_owned());
        }
        Ok(Ledgers {
            config,
            question,
            views,
            repository,
        })
    }
}

/// Writes the file and says what is in it.
///
/// # Errors
/// A ledger that cannot be read, a model without label, a file that cannot be written.
pub fn run(args: TrainingSetArgs) -> Result<(), String> {
    match (args.rows.model.clone(), args.rows.observations.clone()) {
        (Some(model), _) => predictions(args, model),
        (None, Some(file)) => {
            observations::run(file, args.observed, args.ledgers, &args.output, args.json)
        }
        (None, None) => Err("--model or --observations is missing".to_owned()),
    }
}

fn predictions(args: TrainingSetArgs, model: String) -> Result<(), String> {
    FileFormat::of(&args.output)?;
    let ledgers = args.ledgers.open(model)?;
    let catalog = ledgers.repository.catalog();
    let (champion, label) = labelled_champion(&catalog, &ledgers.question.model)?;
    let scoring = champion.scoring.as_ref();
    let scoring = scoring.map_err(|problems| problems.join("; "))?;
    let rule = LabelRule::new(label);
    let counts = write_labelled(&ledgers.question, &rule, &scoring.view, &args.output)?;
    if args.json {
        output::json(&json!({
            "file": args.output.display().to_string(),
            "model": ledgers.question.model,
            "as_of": clock::to_rfc3339(ledgers.question.as_of_us),
            "rows": counts.matured,
            "counts": counts,
        }))?;
    } else {
        output::line(counts);
        output::line(format_args!(
            "wrote {} rows to {}",
            counts.matured,
            args.output.display()
        ));
    }
    Ok(())
}
