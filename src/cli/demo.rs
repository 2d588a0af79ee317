//! `bellwether demo`: the main job in one command.
//!
//! Starts a real server on loopback with a temporary data directory, loads simulated customers
//! and what happened to them lately into its store, scores some of them, and prints what an assembly engine would get.

use clap::Args;
use tokio::net::TcpListener;

use super::serve::shutdown_signal;
use super::{output, runtime};
use crate::batch::push::{ColumnMap, TimeColumns, push_batch};
use crate::clock;
use crate::config::{Config, ConfigArgs, SecurityConfig, TlsConfig};
use crate::features::change::Change;
use crate::features::value::Value;
use crate::score::reasons::Reasons;
use crate::score::{CUSTOMER, ScoreAnswer, ScoreRequest};
use crate::serve::{App, Server};
use crate::simulate;
use crate::store::entity::Applied;
use crate::store::read_one;

/// Customers in the demo's store.
const CUSTOMERS: u64 = 10_000;

/// Which customers.
const SEED: u64 = 7;

/// Events taken at a time.
const EVENTS_BATCH: usize = 1000;

/// Customers scored to find the ones worth showing.
const SCORED: u64 = 400;

/// Customers shown.
const SHOWN: usize = 5;

/// Reasons shown with each prediction.
const REASONS: usize = 3;

/// See predictions with reasons: a server with 10,000 simulated customers
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether demo\n  bellwether demo --once")]
pub struct DemoArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address to listen on; a free port is taken when it is in use
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Print and exit
    #[arg(long)]
    once: bool,
}

/// Runs the demo until Ctrl-C, or prints once.
///
/// # Errors
/// What kept the server from starting or scoring.
pub fn run(args: DemoArgs) -> Result<(), String> {
    let mut config = Config::load(&args.config)?;
    let data_dir =
        tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    config.data_dir = data_dir.path().to_owned();
    config.listen = args.listen;
    config.strict = true;
    // The demo is for whoever sits in front of it.
    config.security = SecurityConfig::default();
    config.tls = TlsConfig::default();
    let address = config.listen_address()?;
    runtime()?.block_on(async {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind((address.ip(), 0)).await,
        };
        let listener =
            listener.map_err(|error| format!("listen: cannot bind {address}: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let server = Server::open(config)?;
        load_customers(server.app()).await?;
        let events = load_events(server.app()).await?;
        show(server.app(), events, &address.to_string()).await?;
        if args.once {
            return server.run(listener, std::future::ready(())).await;
        }
        output::line(format_args!(
            "\nThe server stays up on http://{address} until Ctrl-C."
        ));
        server.run(listener, shutdown_signal()?).await
    })
}

async fn load_customers(app: &App) -> Result<(), String> {
    let view = app.scorer.customer_view();
    let view = &view.map_err(|error| error.to_string())?;
    let map = ColumnMap::new(
        &simulate::customers::schema(),
        view,
        &[],
        &TimeColumns::default(),
    )?;
    let bar = output::progress(Some(CUSTOMERS));
    let mut rejected = Vec::new();
    for batch in simulate::customers::customers(CUSTOMERS, SEED, 1000) {
        let batch = batch?;
        let ingest = &app.ingest;
        let written = push_batch(ingest, view, &map, &batch, 1, &mut rejected).await?;
        bar.inc(written);
    }
    bar.finish_and_clear();
    match rejected.first() {
        Some(row) => Err(format!("simulated customer {}: {}", row.row, row.reason)),
        None => Ok(()),
    }
}

/// Sends what happened to the customers who are scored; returns how many events that are.
async fn load_events(app: &App) -> Result<usize, String> {
    let views = app.scorer.views();
    let heard = |event: &simulate::events::SimulatedEvent| {
        let mut all = views.all().iter();
        all.any(|view| view.windows().listens_to(event.event))
    };
    let events = simulate::events::events(SCORED, SEED, clock::now_us());
    let changes: Vec<Change> = events
        .filter(heard)
        .map(|event| event.to_change())
        .collect();
    for batch in changes.chunks(EVENTS_BATCH) {
        let applied = app.ingest.submit(batch.to_vec()).await;
        let applied = applied.map_err(|error| error.to_string())?;
        if let Some(Applied::Refused(problem)) = applied
            .iter()
            .find(|applied| matches!(applied, Applied::Refused(_)))
        {
            return Err(format!("a simulated event was refused: {problem}"));
        }
    }
    Ok(changes.len())
}

async fn show(app: &App, events: usize, address: &str) -> Result<(), String> {
    let mut scored = Vec::new();
    for number in 1..=SCORED {
        let request = ScoreRequest {
            customer_id: simulate::customer_key(number),
            explain: Some(REASONS),
            ..ScoreRequest::default()
        };
        let answer = app
            .scorer
            .score(&request)
            .await
            .map_err(|error| error.to_string())?;
        scored.push((request.customer_id, answer));
    }
    scored.sort_by(|left, right| first_score(&right.1).total_cmp(&first_score(&left.1)));
    let names: Vec<String> = scored
        .first()
        .map(|(_, answer)| {
            answer
                .predictions
                .iter()
                .map(|p| p.version.name.clone())
                .collect()
        })
        .unwrap_or_default();
    output::line(format_args!(
        "{CUSTOMERS} simulated customers in the store, and {events} events of the last 30 days; {SCORED} scored by\n\
         {}; {SHOWN} of them, from highest to lowest:\n",
        names.join(" and ")
    ));
    // The ends and the middle of the ranking say more than its top.
    let step = (scored.len() - 1) / (SHOWN - 1);
    for (customer_id, answer) in scored.iter().step_by(step).take(SHOWN) {
        print_customer(customer_id, answer);
        print_lately(app, customer_id).await?;
    }
    let customer = scored
        .first()
        .map_or("C-000001", |(customer_id, _)| customer_id.as_str());
    output::line(format_args!(
        "Scores are probabilities. The numbers behind the reasons are log-odds against the model's"
    ));
    output::line(format_args!(
        "reference customer. upsell is look-alike affinity, not the effect of an offer.\n"
    ));
    output::line("Try it:\n");
    output::line(format_args!(
        "  curl -s {address}/v1/score -d '{{\"{CUSTOMER}\": \"{customer}\", \"explain\": 3}}'"
    ));
    output::line(format_args!(
        "  curl -s {address}/v1/score -d '{{\"{CUSTOMER}\": \"{customer}\", \"features\": {{\"contract\": \"Two year\"}}}}'"
    ));
    output::line(format_args!(
        "  curl -s {address}/v1/events -d '{{\"event_id\": \"t-1\", \"event\": \"ticket\", \"{CUSTOMER}\": \"{customer}\"}}'"
    ));
    output::line(format_args!("  curl -s {address}/v1/customers/{customer}"));
    output::line(format_args!(
        "  curl -s {address}/v1/outcomes -d '{{\"{CUSTOMER}\": \"{customer}\", \"outcome\": \"churn\", \"value\": 1}}'"
    ));
    output::line(format_args!(
        "  curl -s {address}/v1/models/churn    # its versions, who answers whom, scores and times"
    ));
    output::line(format_args!(
        "  curl -s {address}/v2/models/churn    # for the clients of Triton, KServe and MLServer"
    ));
    output::line(format_args!("  open http://{address}/docs"));
    Ok(())
}

fn first_score(answer: &ScoreAnswer) -> f64 {
    answer
        .predictions
        .first()
        .map_or(0.0, |prediction| prediction.scored.score)
}

fn print_customer(customer_id: &str, answer: &ScoreAnswer) {
    output::line(customer_id);
    for prediction in &answer.predictions {
        let label = prediction.scored.label.as_deref().unwrap_or_default();
        let reasons = prediction
            .reasons
            .as_ref()
            .map(describe)
            .unwrap_or_default();
        output::line(format_args!(
            "  {:<8} {:>5.1} %  {label:<18} {reasons}",
            prediction.version.name,
            prediction.scored.score * 100.0,
        ));
    }
}

/// What the windows hold of a customer, where that is anything.
async fn print_lately(app: &App, customer_id: &str) -> Result<(), String> {
    let view = &app.scorer.customer_view();
    let view = view.as_ref().map_err(ToString::to_string)?;
    let found = read_one(&*app.scorer.store, view, customer_id, clock::now_us()).await;
    let found = found.map_err(|error| error.to_string())?;
    let windows = found.map(|snapshot| snapshot.windows).unwrap_or_default();
    let columns = &view.features()[view.window_columns()];
    let told: Vec<String> = columns
        .iter()
        .zip(&windows)
        .filter_map(|(feature, value)| match value {
            Value::Int64(count) if *count > 0 => Some(format!("{} {count}", feature.name)),
            Value::Float64(amount) if *amount > 0.0 => {
                Some(format!("{} {amount:.1}", feature.name))
            }
            _ => None,
        })
        .collect();
    if !told.is_empty() {
        output::line(format_args!("  lately   {}", told.join(", ")));
    }
    output::line("");
    Ok(())
}

fn describe(reasons: &Reasons) -> String {
    let parts = reasons.contributions.iter().map(|reason| {
        let value = match reason.value.to_json() {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        format!("{} {value} ({:+.2})", reason.feature, reason.contribution)
    });
    parts.collect::<Vec<_>>().join(", ")
}
