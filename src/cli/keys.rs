//! `bellwether keys`: make, list, revoke and rotate API keys.
//!
//! It works on the file of keys, which a running server looks at every second. The text of a key is
//! printed once, when it is made; nobody can get it out of the file again.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::output;
use crate::clock;
use crate::config::{Config, ConfigArgs};
use crate::serve::auth::key_file::{self, KeyEntry, KeyFile, PreviousSecret, Time};
use crate::serve::auth::scope::Scope;
use crate::serve::auth::secret::{new_id, new_key};

/// Make, list, revoke and rotate API keys
///
/// A running server takes the change within two seconds.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether keys create --name 'assembly engine' --scope score,feedback"
)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
    Rotate(RotateArgs),
}

/// Which file.
#[derive(Args)]
struct FileArgs {
    /// Configuration file [default: bellwether.toml when it exists]
    #[arg(long, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of the server's data [default: data]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The file of API keys [default: keys.toml in the data directory]
    #[arg(long, value_name = "FILE", env = "BELLWETHER_KEYS_FILE")]
    keys_file: Option<PathBuf>,
}

/// Make a key and print it, once
#[derive(Args)]
#[command(after_help = "Examples:
  bellwether keys create --name 'assembly engine' --scope score,feedback --rate 500
  bellwether keys create --name pipeline --scope deploy --expires 90d > pipeline.key
  bellwether keys create --name prometheus --scope metrics > prometheus.key")]
struct CreateArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Whose it is, for people
    #[arg(long)]
    name: String,
    /// What it may do: score, feedback, data, deploy, metrics, admin (all of it); with commas between
    #[arg(long = "scope", value_name = "SCOPE,…", required = true, value_delimiter = ',', value_parser = Scope::parse)]
    scopes: Vec<Scope>,
    /// How long it is taken [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// Requests a second that it may make [default: any number]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How many of them may come at once [default: those of a second]
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Print key, id and scopes as JSON
    #[arg(long)]
    json: bool,
}

/// List the keys, without their secrets
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether keys list")]
struct ListArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// Refuse a key from now on
///
/// It stays listed, so that what it did keeps a name.
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether keys revoke 3f9a2c1b")]
struct RevokeArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The id of the key, as `keys list` shows it
    id: String,
}

/// Give a key another secret and print it, once
///
/// The one before is taken beside it until the grace is over; the one before that is not.
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether keys rotate 3f9a2c1b --grace 1h")]
struct RotateArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The id of the key, as `keys list` shows it
    id: String,
    /// How long the old secret is taken beside the new one
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Print the key and until when the old one is taken as JSON
    #[arg(long)]
    json: bool,
}

/// Runs a `keys` subcommand.
///
/// # Errors
/// What is wrong with the file or the arguments.
pub fn run(args: KeysArgs) -> Result<(), String> {
    match args.command {
        KeysCommand::Create(args) => create(&args),
        KeysCommand::List(args) => list(&args),
        KeysCommand::Revoke(args) => revoke(&args),
        KeysCommand::Rotate(args) => rotate(&args),
    }
}

impl FileArgs {
    fn path(&self) -> Result<PathBuf, String> {
        let config = Config::load(&ConfigArgs {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            ..ConfigArgs::default()
        })?;
        let named = self.keys_file.clone();
        Ok(named.unwrap_or_else(|| config.security.keys_file(&config.data_dir)))
    }
}

fn create(args: &CreateArgs) -> Result<(), String> {
    let path = args.file.path()?;
    let now_us = clock::now_us();
    let (entry, text) = key_file::change(&path, |file| {
        let id = unused_id(file)?;
        let key = new_key(&id)?;
        let mut scopes = args.scopes.clone();
        scopes.sort_unstable();
        scopes.dedup();
        let entry = KeyEntry {
            id,
            name: args.name.clone(),
            sha256: key.digest,
            scopes,
            created: Time(now_us),
            expires: args.expires.map(|time| after(now_us, time)),
            rate_per_second: args.rate,
            burst: args.burst,
            revoked: None,
            previous: None,
        };
        file.keys.push(entry.clone());
        Ok((entry, key.text))
    })?;
    if args.json {
        let mut shown = describe(&entry, now_us);
        shown["key"] = text.into();
        return output::json(&shown);
    }
    output::line(&text);
    output::note(format_args!(
        "key {} is in {}; its text is shown this once. It may: {}",
        entry.id,
        path.display(),
        names(&entry.scopes)
    ));
    Ok(())
}

fn list(args: &ListArgs) -> Result<(), String> {
    let file = key_file::read(&args.file.path()?)?;
    let now_us = clock::now_us();
    let keys: Vec<Json> = file.keys.iter().map(|key| describe(key, now_us)).collect();
    if args.json {
        return output::json(&json!({ "keys": keys }));
    }
    let columns = [
        "id", "name", "state", "scopes", "rate", "created", "expires",
    ];
    let mut rows = vec![columns.map(str::to_owned)];
    for key in &file.keys {
        let time = |time: Option<Time>| {
            time.map_or("never".to_owned(), |time| {
                clock::to_rfc3339(time.0)[..16].to_owned()
            })
        };
        rows.push([
            key.id.clone(),
            key.name.clone(),
            state(key, now_us).to_owned(),
            names(&key.scopes),
            key.rate_per_second
                .map_or("any".to_owned(), |rate| format!("{rate}/s")),
            time(Some(key.created)),
            time(key.expires),
        ]);
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        })
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        output::line(line.join("  ").trim_end());
    }
    Ok(())
}

fn revoke(args: &RevokeArgs) -> Result<(), String> {
    let path = args.file.path()?;
    let was_revoked = key_file::change(&path, |file| {
        let key = called(file, &args.id)?;
        let was_revoked = key.revoked.is_some();
        key.revoked.get_or_insert(Time(clock::now_us()));
        Ok(was_revoked)
    })?;
    let already = if was_revoked { " already" } else { "" };
    output::line(format_args!("key {} is revoked{already}", args.id));
    Ok(())
}

fn rotate(args: &RotateArgs) -> Result<(), String> {
    let path = args.file.path()?;
    let now_us = clock::now_us();
    let until = after(now_us, args.grace);
    let text = key_file::change(&path, |file| {
        let key = called(file, &args.id)?;
        if key.revoked.is_some() {
            return Err(format!("key {} is revoked; create another one", key.id));
        }
        let new = new_key(&key.id)?;
        key.previous = Some(PreviousSecret {
            sha256: key.sha256,
            until,
        });
        key.sha256 = new.digest;
        Ok(new.text)
    })?;
    let until = clock::to_rfc3339(until.0);
    if args.json {
        return output::json(&json!({"id": args.id, "key": text, "previous_until": until}));
    }
    output::line(&text);
    output::note(format_args!(
        "key {} has another secret, which is shown this once; the one before is taken until {until}",
        args.id
    ));
    Ok(())
}

fn unused_id(file: &mut KeyFile) -> Result<String, String> {
    loop {
        let id = new_id()?;
        if file.find(&id).is_none() {
            return Ok(id);
        }
    }
}

fn called<'a>(file: &'a mut KeyFile, id: &str) -> Result<&'a mut KeyEntry, String> {
    file.find(id)
        .ok_or_else(|| format!("no key has the id {id:?}; `bellwether keys list` shows them"))
}

fn after(now_us: i64, time: Duration) -> Time {
    let microseconds = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    // Up to the end of the year 9999, which is as far as its text goes.
    Time(
        now_us
            .saturating_add(microseconds)
            .min(253_402_300_799_999_999),
    )
}

fn names(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
    names.join(",")
}

fn state(key: &KeyEntry, now_us: i64) -> &'static str {
    if key.revoked.is_some() {
        "revoked"
    } else if key.expires.is_some_and(|end| now_us >= end.0) {
        "expired"
    } else {
        "active"
    }
}

/// A key without its digest.
fn describe(key: &KeyEntry, now_us: i64) -> Json {
    let time = |time: Option<Time>| time.map(|time| clock::to_rfc3339(time.0));
    json!({
        "id": key.id,
        "name": key.name,
        "state": state(key, now_us),
        "scopes": key.scopes,
        "rate_per_second": key.rate_per_second,
        "burst": key.rate_per_second.map(|_| key.burst()),
        "created": time(Some(key.created)),
        "expires": time(key.expires),
        "revoked": time(key.revoked),
        "previous_until": time(key.previous.as_ref().map(|previous| previous.until)),
    })
}
