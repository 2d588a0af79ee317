//! The summary of a job as a page: one file that needs nothing else, for whoever wants to see what ran and
//! whether the scores look as they should.
//!
//! It has no scripts, takes nothing from elsewhere, and tells the browser to let neither be. All text that
//! comes from data is escaped. Light or dark is what the reader's system says; it can be read on a phone
//! and printed. With `--diff` it names customers by their keys, so it is personal data then.

pub mod charts;
pub mod text;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use self::charts::{histogram, meter, migration};
use self::text::{change, count, escaped, percent, score};
use super::Job;
use super::definition::Definition;
use super::diff::{Diff, ModelDiff, Mover};
use super::folder::{publish, with_suffix};
use super::inputs::InputFile;
use super::publish::{place_of, rejects_path};
use super::statistics::FeatureStatistics;
use super::summary::{ModelSummary, Summary};

/// Inputs that are listed; all of them are in the manifest.
const LISTED_INPUTS: usize = 50;
const STYLE: &str = include_str!("style.css");

/// Checks that the page can be written where it is asked for, and takes the place of nothing.
///
/// # Errors
/// What is there, or is not.
pub fn check_path(page: &Path, job: &Job, files: &[InputFile]) -> Result<(), String> {
    let named = || format!("--html {}", page.display());
    let place = place_of(page).map_err(|error| format!("{}: its folder: {error}", named()))?;
    if place.is_dir() {
        return Err(format!("{}: it is a folder; name a file", named()));
    }
    let manifest = with_suffix(&job.output, ".manifest.json");
    let rejects = rejects_path(job);
    let others = [&job.output, &manifest, &rejects].into_iter();
    let others = others
        .chain(&job.diff)
        .chain(files.iter().map(|file| &file.path));
    let is_taken = |other: &std::path::PathBuf| place_of(other).ok().as_ref() == Some(&place);
    match others.into_iter().find(|other| is_taken(other)) {
        Some(other) => Err(format!(
            "{}: this is {} already; write the page to a file of its own",
            named(),
            other.display()
        )),
        None => Ok(()),
    }
}

/// Writes the page; it appears when it is complete.
///
/// # Errors
/// When the disk does not take it.
pub fn write(
    page: &Path,
    job: &Definition,
    summary: &Summary,
    finished_at: &str,
) -> Result<(), String> {
    let unfinished = with_suffix(page, ".new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&unfinished)?;
        file.write_all(render(job, summary, finished_at).as_bytes())?;
        file.sync_all()?;
        publish(&unfinished, page)
    };
    write().map_err(|error| format!("--html {}: {error}", page.display()))
}

/// The page.
pub fn render(job: &Definition, summary: &Summary, finished_at: &str) -> String {
    let output = summary.output.file_name().unwrap_or_default();
    let title = escaped(format!("Scores in {}", output.to_string_lossy()));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<header><h1>{title}</h1>\n<p class=\"quiet\">{} · finished {}</p></header>\n<main>\n",
        escaped(summary.output.display()),
        escaped(
            finished_at
                .get(..19)
                .unwrap_or(finished_at)
                .replace('T', " ")
        ) + " UTC",
    );
    page.push_str(&figures(summary));
    for (index, model) in summary.models.iter().enumerate() {
        let diff = summary.diff.as_ref();
        let diff = diff.and_then(|diff| Some((diff, of_model(diff, &model.model)?)));
        page.push_str(&section_of(index, model, diff));
    }
    page.push_str(&rejects(summary));
    page.push_str(&quality(summary));
    page.push_str(&what_ran(job, summary));
    let keys = match summary.diff {
        Some(_) => " The keys of customers in this page are personal data.",
        None => "",
    };
    let _ = write!(
        page,
        "</main>\n<footer>Written by bellwether {}.{keys}</footer>\n</body>\n</html>\n",
        escaped(&job.program)
    );
    page
}

fn of_model<'d>(diff: &'d Diff, model: &str) -> Option<&'d ModelDiff> {
    diff.models.iter().find(|other| other.model == model)
}

fn figures(summary: &Summary) -> String {
    let mut figures = vec![
        (count(summary.rows), "rows read".to_owned()),
        (count(summary.scored), "rows scored".to_owned()),
        (
            count(summary.rejected),
            format!("rejected ({})", percent(summary.rejected, summary.rows)),
        ),
    ];
    if let Some(diff) = &summary.diff {
        let new_and_gone = format!("{} / {}", count(diff.new), count(diff.gone));
        figures.push((new_and_gone, "new / gone since the last run".to_owned()));
    }
    let speed = format!(
        "{:.0} rows/s, {} threads",
        summary.rows_per_second, summary.threads
    );
    figures.push((duration(summary.seconds), speed));
    let figures = figures.iter();
    let items =
        figures.map(|(figure, what)| format!("<li><b>{figure}</b><span>{what}</span></li>"));
    format!("<ul class=\"figures\">{}</ul>\n", items.collect::<String>())
}

fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

fn section_of(index: usize, model: &ModelSummary, diff: Option<(&Diff, &ModelDiff)>) -> String {
    let id = format!("model-{index}");
    let mut section = format!(
        "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{} <span class=\"quiet\">version {}</span></h2>\n",
        escaped(&model.model),
        escaped(&model.version)
    );
    let scores = &model.scores;
    let number = |number: Option<f64>| number.map_or("–".to_owned(), score);
    let _ = writeln!(
        section,
        "<p>{} scores, {} on average, from {} to {}.</p>",
        count(scores.count),
        number(scores.mean),
        number(scores.min),
        number(scores.max)
    );
    section.push_str(&histogram(&id, &model.model, &scores.histogram));
    let quantiles = scores.quantiles.iter();
    let (names, values): (String, String) = quantiles
        .map(|(name, value)| {
            let percent = name.trim_start_matches(['p', '0']);
            (
                format!("<th scope=\"col\" class=\"number\">{percent} %</th>"),
                format!("<td class=\"number\">{}</td>", number(*value)),
            )
        })
        .unzip();
    let _ = writeln!(
        section,
        "<div class=\"scroll\"><table><caption>So many of the rows have a score of at most</caption>\
         <thead><tr>{names}</tr></thead><tbody><tr>{values}</tr></tbody></table></div>"
    );
    let all: u64 = model.bands.iter().map(|band| band.rows).sum();
    let bands = model.bands.iter();
    let bands = bands.map(|band| (band.band.as_str(), band.rows, all));
    section.push_str(&counted("Bands", "band", bands));
    if !model.labels.is_empty() {
        let labels = model.labels.iter();
        let labels = labels.map(|(label, rows)| (label.as_str(), *rows, scores.count));
        section.push_str(&counted("Labels", "label", labels));
    }
    if let Some((diff, of_model)) = diff {
        section.push_str(&since(diff, of_model));
    }
    section.push_str("</section>\n");
    section
}

/// A table of names with their rows, their share and a bar.
fn counted<'n>(
    title: &str,
    what: &str,
    counts: impl Iterator<Item = (&'n str, u64, u64)>,
) -> String {
    let rows = counts.map(|(name, rows, all)| {
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td></tr>\n",
            escaped(name),
            count(rows),
            percent(rows, all),
            meter(&[("rows", rows)], all)
        )
    });
    format!(
        "<h3>{title}</h3><div class=\"scroll\"><table><thead><tr><th scope=\"col\">{what}</th>\
         <th scope=\"col\" class=\"number\">rows</th><th scope=\"col\" class=\"number\">share</th><td></td>\
         </tr></thead><tbody>{}</tbody></table></div>\n",
        rows.collect::<String>()
    )
}

fn since(diff: &Diff, model: &ModelDiff) -> String {
    let then = match &model.last_version {
        Some(version) => format!(", version {} then", escaped(version)),
        None => String::new(),
    };
    let mean = model.mean_change.map_or(String::new(), |mean| {
        format!(" The score changed by {} on average.", change(mean))
    });
    let mut text = format!(
        "<h3>Since the last run</h3>\n<p class=\"quiet\">{}{then}</p>\n<p>Of {} customers of both runs {} rose by \
         a band or more, {} fell, {} stayed.{mean}</p>\n{}",
        escaped(diff.last.display()),
        count(diff.both),
        count(model.rose),
        count(model.fell),
        count(model.stayed),
        migration(model)
    );
    if diff.duplicates + diff.last_duplicates > 0 {
        let _ = writeln!(
            text,
            "<p class=\"quiet\">Keys that come again: {} rows now, {} then. The last row of each counts.</p>",
            count(diff.duplicates),
            count(diff.last_duplicates)
        );
    }
    let tables = [("up", &model.up), ("down", &model.down)].into_iter();
    let tables = tables
        .filter(|(_, movers)| !movers.is_empty())
        .map(|(direction, movers)| movers_table(direction, movers));
    let _ = writeln!(
        text,
        "<div class=\"movers\">{}</div>",
        tables.collect::<String>()
    );
    text
}

fn movers_table(direction: &str, movers: &[Mover]) -> String {
    let rows = movers.iter().map(|mover| {
        let numbers = [score(mover.then), score(mover.now), change(mover.change)];
        let numbers = numbers.map(|number| format!("<td class=\"number\">{number}</td>"));
        format!(
            "<tr><td>{}</td>{}</tr>\n",
            escaped(mover.name()),
            numbers.concat()
        )
    });
    format!(
        "<div class=\"scroll\"><table><caption>Furthest {direction}</caption><thead><tr><th scope=\"col\">who</th>\
         <th scope=\"col\" class=\"number\">then</th><th scope=\"col\" class=\"number\">now</th>\
         <th scope=\"col\" class=\"number\">change</th></tr></thead><tbody>{}</tbody></table></div>",
        rows.collect::<String>()
    )
}

fn rejects(summary: &Summary) -> String {
    let Some(file) = &summary.rejects else {
        return String::new();
    };
    let reasons = summary.reject_reasons.iter();
    let reasons = reasons.map(|told| (told.reason.as_str(), told.rows, summary.rejected));
    format!(
        "<section><h2>Rows that were not scored</h2>\n<p>{} of {}; each with its reason in <code>{}</code>.</p>\n{}\
         </section>\n",
        count(summary.rejected),
        count(summary.rows),
        escaped(file.display()),
        counted("Reasons", "reason", reasons)
    )
}

fn quality(summary: &Summary) -> String {
    let bad = |counts: &FeatureStatistics| {
        counts.missing + counts.unknown + counts.out_of_range + counts.stale
    };
    let mut features: Vec<(&String, &FeatureStatistics)> = summary.features.iter().collect();
    features.sort_by_key(|(name, counts)| (std::cmp::Reverse(bad(counts)), name.as_str()));
    let rows = features.iter().map(|(name, counts)| {
        let figures = [
            counts.missing,
            counts.unknown,
            counts.out_of_range,
            counts.stale,
        ];
        let cells = figures.map(|figure| {
            let share = match figure {
                0 => String::new(),
                figure => percent(figure, summary.scored),
            };
            format!(
                "<td class=\"number\">{} <span class=\"quiet\">{share}</span></td>",
                count(figure)
            )
        });
        let parts = ["missing", "unknown", "range", "stale"]
            .into_iter()
            .zip(figures);
        let bar = meter(&parts.collect::<Vec<_>>(), summary.scored);
        format!(
            "<tr><th scope=\"row\">{}</th><td>{bar}</td>{}</tr>\n",
            escaped(name),
            cells.concat()
        )
    });
    let unread = match summary.unread.as_slice() {
        [] => String::new(),
        unread => format!(
            "<p class=\"quiet\">Columns of the first input that no model reads: {}.</p>\n",
            escaped(unread.join(", "))
        ),
    };
    format!(
        "<section><h2>What the models read</h2>\n<p class=\"quiet\"><span class=\"key missing\"></span>missing: no \
         value, so the default was used or missing passed on <span class=\"key unknown\"></span>unknown: not one \
         of the declared values <span class=\"key range\"></span>out of range <span class=\"key stale\"></span>stale: \
         stored longer ago than its <code>max_age</code></p>\n<div class=\"scroll\"><table>\
         <caption>Of {} rows that were scored, the worst first</caption><thead><tr><th scope=\"col\">feature</th>\
         <td></td><th scope=\"col\" class=\"number\">missing</th><th scope=\"col\" class=\"number\">unknown</th>\
         <th scope=\"col\" class=\"number\">out of range</th>\
         <th scope=\"col\" class=\"number\">stale</th></tr></thead><tbody>{}</tbody></table></div>\n\
         {unread}</section>\n",
        count(summary.scored),
        rows.collect::<String>()
    )
}

fn what_ran(job: &Definition, summary: &Summary) -> String {
    let models = job.models.iter().map(|model| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td><code>{}</code></td></tr>\n",
            escaped(&model.model),
            escaped(&model.version),
            escaped(&model.digest)
        )
    });
    let inputs = job.inputs.iter().take(LISTED_INPUTS).map(|input| {
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td><code>{}</code></td></tr>\n",
            escaped(input.path.display()),
            count(input.bytes),
            escaped(&input.xxh3)
        )
    });
    let inputs: String = inputs.collect();
    let more = match job.inputs.len().saturating_sub(LISTED_INPUTS) {
        0 => String::new(),
        more => format!("<p class=\"quiet\">And {more} more, which are in the manifest.</p>\n"),
    };
    let said = job
        .options
        .iter()
        .filter(|(_, value)| !value.is_empty() && value != "0");
    let said =
        said.map(|(name, value)| format!("<code>{} {}</code> ", escaped(name), escaped(value)));
    let resumed = match summary.resumed_rows {
        0 => String::new(),
        rows => format!(
            " {} rows were done by an interrupted run before.",
            count(rows)
        ),
    };
    format!(
        "<section><h2>What ran</h2>\n<p>bellwether {}, feature view {} (<code>{}</code>).{resumed}</p>\n<p>{}</p>\n\
         <div class=\"scroll\"><table><caption>Models, by the SHA-256 of their files</caption><thead><tr>\
         <th scope=\"col\">model</th><th scope=\"col\">version</th><th scope=\"col\">digest</th></tr></thead>\
         <tbody>{}</tbody></table></div>\n<div class=\"scroll\"><table><caption>Inputs, by the XXH3 of their \
         bytes</caption><thead><tr><th scope=\"col\">file</th><th scope=\"col\" class=\"number\">bytes</th>\
         <th scope=\"col\">digest</th></tr></thead><tbody>{inputs}</tbody></table></div>\n{more}</section>\n",
        escaped(&job.program),
        escaped(&job.view),
        escaped(&job.view_digest),
        said.collect::<String>(),
        models.collect::<String>(),
    )
}
