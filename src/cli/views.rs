//! `bellwether features check`, `show` and `schema`: view files looked at without a server.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::output;
use crate::config::{Config, ConfigArgs};
use crate::features::view::relation::KeyPart;
use crate::features::view::schema::json_schema;
use crate::features::view::{Feature, Holds, Role, View};
use crate::features::views::{ViewErrors, Views};
use crate::features::windows::Aggregate;

/// Check every view file and explain each mistake
///
/// Prints one line for each mistake, with file, line and what may have been meant. Exits with 1 when
/// there are any.
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether features check --features features")]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the mistakes as JSON
    #[arg(long)]
    json: bool,
}

/// Show the views and their features
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether features show --view customer")]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this view
    #[arg(long)]
    view: Option<String>,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// Print the JSON schema of view files, for editors
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether features schema > view.schema.json")]
pub struct SchemaArgs {}

/// Runs `features check`.
///
/// # Errors
/// How many mistakes there are; they are printed.
pub fn check(args: &CheckArgs) -> Result<(), String> {
    let config = Config::load(&args.config)?;
    let loaded = Views::load(&config.features);
    let mistakes = match &loaded {
        Ok(_) => &[],
        Err(ViewErrors(errors)) => errors.as_slice(),
    };
    if args.json {
        output::json(&json!({"ok": mistakes.is_empty(), "mistakes": mistakes}))?;
    } else {
        for mistake in mistakes {
            output::line(mistake);
        }
    }
    let views = match loaded {
        Ok(views) => views,
        Err(_) if mistakes.len() == 1 => return Err("1 mistake in the feature views".to_owned()),
        Err(_) => return Err(format!("{} mistakes in the feature views", mistakes.len())),
    };
    if !args.json {
        let features: usize = views.all().iter().map(|view| view.features().len()).sum();
        let count = views.all().len();
        output::line(format_args!("ok: {count} views with {features} features"));
    }
    Ok(())
}

/// Runs `features show`.
///
/// # Errors
/// Mistakes in the views, or no view of the name.
pub fn show(args: &ShowArgs) -> Result<(), String> {
    let config = Config::load(&args.config)?;
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let wanted = |view: &View| args.view.as_ref().is_none_or(|name| *name == view.name);
    let shown: Vec<&View> = views
        .all()
        .iter()
        .map(AsRef::as_ref)
        .filter(|view| wanted(view))
        .collect();
    if let (true, Some(name)) = (shown.is_empty(), &args.view) {
        let names: Vec<&str> = views.all().iter().map(|view| view.name.as_str()).collect();
        let names = names.join(", ");
        return Err(format!(
            "--view {name:?}: no such view; the views are: {names}"
        ));
    }
    if args.json {
        let views: Vec<Json> = shown.into_iter().map(view_json).collect();
        return output::json(&json!({"views": views}));
    }
    for (index, view) in shown.into_iter().enumerate() {
        if index > 0 {
            output::line("");
        }
        print_view(view);
    }
    Ok(())
}

/// Runs `features schema`.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn schema(_args: &SchemaArgs) -> Result<(), String> {
    let text = serde_json::to_string_pretty(&json_schema()).map_err(|error| error.to_string())?;
    output::line(text);
    Ok(())
}

fn print_view(view: &View) {
    let mut heading = format!("view {}, entity {}", view.name, view.entity);
    if let Some(owner) = &view.owner {
        heading.push_str(&format!(", owner {owner}"));
    }
    if !view.purposes.is_empty() {
        heading.push_str(&format!(", for {}", view.purposes.join(", ")));
    }
    output::line(heading);
    for relation in view.relations() {
        output::line(format_args!(
            "relation {}: view {} by {}",
            relation.name,
            relation.view,
            key_names(view, &relation.key).join(", ")
        ));
    }
    let heading = ["feature", "type", "values", "default", "from"].map(str::to_owned);
    let mut rows = vec![heading];
    for (column, feature) in view.features().iter().enumerate() {
        let default = feature.default.as_ref();
        let default = default.map_or(String::new(), |default| default.to_json().to_string());
        let name = match feature.personal {
            true => format!("{} (personal)", feature.name),
            false => feature.name.clone(),
        };
        let kind = match feature.holds {
            Holds::One => feature.kind.name().to_owned(),
            Holds::List => "list".to_owned(),
            Holds::Map => "map".to_owned(),
        };
        let origin = origin(view, column, feature);
        rows.push([name, kind, allowed(feature), default, origin]);
    }
    let widths: Vec<usize> = (0..4)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.push_str(&row[4]);
        output::line(line.trim_end());
    }
}

/// The values that a feature may have, in few words.
fn allowed(feature: &Feature) -> String {
    match (feature.min, feature.max, feature.values.len()) {
        (Some(min), Some(max), _) => format!("{min} to {max}"),
        (Some(min), None, _) => format!("from {min}"),
        (None, Some(max), _) => format!("to {max}"),
        (None, None, 0) => String::new(),
        (None, None, 1) => "1 value".to_owned(),
        (None, None, count) => format!("{count} values"),
    }
}

/// Where the values of a feature come from.
fn origin(view: &View, column: usize, feature: &Feature) -> String {
    match feature.role {
        Role::Stored | Role::Request => feature.role.as_word().to_owned(),
        Role::Window => aggregate_of(view, column).map_or(String::new(), |aggregate| {
            let word = json!(aggregate.function);
            let mut text = format!(
                "{} of {}, {}",
                word.as_str().unwrap_or_default(),
                aggregate.event,
                short_duration(aggregate.window)
            );
            for (word, sql) in [
                ("value", &aggregate.value),
                ("where", &aggregate.filter),
                ("by", &aggregate.group_by),
                ("group", &aggregate.group),
            ] {
                if let Some(sql) = sql {
                    text.push_str(&format!(", {word} {}", one_line(sql)));
                }
            }
            text
        }),
        Role::Related => related_name(view, column).unwrap_or_default(),
        Role::Derived => {
            let sql = feature.expression.as_ref().map(|e| one_line(e.sql()));
            format!("= {}", sql.unwrap_or_default())
        }
    }
}

/// A duration in the largest unit that divides it: `90d`.
fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let fitting = units.iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    match fitting {
        Some((unit, letter)) if duration.subsec_nanos() == 0 => {
            format!("{}{letter}", seconds / unit)
        }
        _ => humantime::format_duration(duration).to_string(),
    }
}

fn one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn aggregate_of(view: &View, column: usize) -> Option<&Aggregate> {
    let index = column.checked_sub(view.window_columns().start)?;
    view.windows().aggregates().get(index)
}

fn related_name(view: &View, column: usize) -> Option<String> {
    let index = column.checked_sub(view.related_columns().start)?;
    let related = view.related().get(index)?;
    let relation = view.relations().get(related.relation)?;
    Some(format!("{}.{}", relation.name, related.feature))
}

fn key_names<'v>(view: &'v View, key: &[KeyPart]) -> Vec<&'v str> {
    key.iter()
        .map(|part| match part {
            KeyPart::Feature(column) => view.features()[*column].name.as_str(),
            KeyPart::Own(index) => view.key_columns()[*index].as_str(),
        })
        .collect()
}

fn view_json(view: &View) -> Json {
    let relations = view.relations().iter().map(|relation| {
        let key = key_names(view, &relation.key);
        json!({"name": relation.name, "view": relation.view, "key": key})
    });
    let features = view.features().iter().enumerate();
    json!({
        "name": view.name,
        "entity": view.key_columns(),
        "description": view.description,
        "owner": view.owner,
        "purposes": view.purposes,
        "relations": relations.collect::<Vec<_>>(),
        "features": features
            .map(|(column, feature)| feature_json(view, column, feature))
            .collect::<Vec<_>>(),
    })
}

fn feature_json(view: &View, column: usize, feature: &Feature) -> Json {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Json| {
        let is_empty = match &value {
            Json::Null => true,
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            _ => false,
        };
        if !is_empty {
            fields.insert(name.to_owned(), value);
        }
    };
    set("name", json!(feature.name));
    set("type", json!(feature.kind));
    set("role", json!(feature.role));
    set("holds", json!(feature.holds));
    set("description", json!(feature.description));
    set("owner", json!(feature.owner));
    set("purposes", json!(feature.purposes));
    set("tags", json!(feature.tags));
    set("personal", json!(feature.personal));
    let default = feature.default.as_ref();
    set("default", json!(default.map(|default| default.to_json())));
    let values = feature.values.iter();
    set("values", values.map(|value| value.to_json()).collect());
    set("min", json!(feature.min));
    set("max", json!(feature.max));
    let max_age = feature.max_age.map(|age| age.as_secs_f64());
    set("max_age_seconds", json!(max_age));
    let sql = feature.expression.as_ref().map(|e| e.sql());
    set("expression", json!(sql));
    if feature.role == Role::Related {
        set("from", json!(related_name(view, column)));
    }
    if let (Role::Window, Some(aggregate)) = (feature.role, aggregate_of(view, column)) {
        set(
            "aggregate",
            json!({
                "event": aggregate.event,
                "function": aggregate.function,
                "window_seconds": aggregate.window.as_secs_f64(),
                "value": aggregate.value,
                "where": aggregate.filter,
                "group_by": aggregate.group_by,
                "group": aggregate.group,
            }),
        );
    }
    Json::Object(fields)
}
