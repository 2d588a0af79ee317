//! Where a job begins: at the first row, or where one that was interrupted has come to.

use super::definition::{CLUSTER_OPTION, Definition, ModelDigest};
use super::diff::{self, Last};
use super::folder::{JobFolder, Part};
use super::inputs::InputFile;
use super::plan::Plan;
use super::prepare::Prepared;
use super::summary::digest_of;
use super::{Job, News, store_source};
use crate::clock;
use crate::models::version::hexadecimal;

/// A job that has begun.
pub struct Begun {
    pub definition: Definition,
    /// What its scores are compared with, as it was when the job began.
    pub last: Option<Last>,
}

/// Begins in the folder, or goes on there: gives the parts that are done. The plan gets the time of the job,
/// and the bands of the last run.
///
/// # Errors
/// What is another job than the one that was interrupted, or a folder that cannot be read or written.
pub fn begin(
    job: &Job,
    prepared: &mut Prepared<'_>,
    folder: &JobFolder,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<(Begun, Vec<Part>), String> {
    let plan = &mut prepared.plan;
    let mut definition = define(plan, job, &prepared.files);
    let parts = parts_before(job, &mut definition, folder, tell)?;
    let parts = store_source::go_on_with(job, plan, folder, &mut definition, parts, tell)?;
    plan.at_us = definition.at_us;
    plan.request_time = plan.view.request_time(plan.at_us).collect();
    let last = match prepared.diff {
        Some(path) => diff::read_last(folder, plan, path, !parts.is_empty())?,
        None => None,
    };
    if let Some(last) = &last {
        last.give_bands(plan);
    }
    Ok((Begun { definition, last }, parts))
}

/// The parts of the interrupted job that is gone on with, whose time the definition gets. Else the folder
/// becomes that of a new job, which has none.
fn parts_before(
    job: &Job,
    definition: &mut Definition,
    folder: &JobFolder,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Vec<Part>, String> {
    let before = match folder.definition() {
        // What cannot be read is discarded as well.
        Err(_) if !job.resume => Some(Definition::default()),
        read => read?,
    };
    match &before {
        Some(before) if job.resume && !before.is_on_cluster() => {
            let changes = before.changes(definition);
            if !changes.is_empty() {
                return Err(format!(
                    "--resume: this is not the job that was interrupted: {}; put that back, or run \
                     without --resume to begin again",
                    changes.join("; ")
                ));
            }
            definition.at_us = before.at_us;
            folder.parts()
        }
        _ => {
            if let Some(before) = &before {
                tell(News::Remark(discarded(before, definition)));
            }
            folder.begin(definition)?;
            Ok(Vec::new())
        }
    }
}

/// What is said when a job that was interrupted, `before`, is not gone on with.
fn discarded(before: &Definition, now: &Definition) -> &'static str {
    if before.is_on_cluster() {
        return "what a job on a cluster has left is discarded; such a job is begun again";
    }
    match now.is_on_cluster() {
        true => {
            "what an interrupted job has left is discarded; without --cluster, --resume goes on with it"
        }
        false => "what an interrupted job has left is discarded; --resume goes on with it",
    }
}

/// What the job is.
fn define(plan: &Plan, job: &Job, files: &[InputFile]) -> Definition {
    let named = plan.columns.named.iter();
    let named: Vec<String> = named
        .map(|(feature, column)| format!("{feature}={column}"))
        .collect();
    let explain = plan.explain.map_or(0, |limit| limit);
    let bands = job.asked.bands.as_ref().map(ToString::to_string);
    let bands = bands.unwrap_or_default();
    let last = job.diff.as_ref().map(|last| last.display().to_string());
    let last = last.unwrap_or_default();
    let options = [
        ("--column", named.join(",")),
        ("--without", plan.columns.without.join(",")),
        ("--explain", explain.to_string()),
        ("--checkpoint-rows", plan.checkpoint_rows.to_string()),
        ("--output", job.output.display().to_string()),
        ("--bands", bands),
        ("--diff", last),
    ];
    let models = plan.models.iter().map(|version| ModelDigest {
        model: version.name.clone(),
        version: version.version.clone(),
        digest: digest_of(version),
    });
    // Parts of a cluster's job are in no order that the one-machine job could go on in.
    let cluster = job.cluster.iter();
    let cluster = cluster.map(|cluster| (CLUSTER_OPTION, cluster.url.clone()));
    let options = options.into_iter().chain(cluster);
    Definition {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        inputs: files.to_vec(),
        models: models.collect(),
        view: plan.view.name.clone(),
        view_digest: hexadecimal(&plan.view.digest),
        options: options
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        at_us: clock::now_us(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::batch::cluster::Cluster;
    use crate::batch::score::bind::ColumnOptions;
    use crate::batch::score::limit::RejectLimit;
    use crate::batch::score::plan::Asked;
    use crate::batch::score::tests::plan;

    fn job(output: &Path, is_resumed: bool, is_on_cluster: bool) -> Job {
        Job {
            asked: Asked {
                models: Vec::new(),
                explain: None,
                columns: ColumnOptions::default(),
                checkpoint_rows: 1,
                bands: None,
            },
            inputs: Vec::new(),
            output: output.to_owned(),
            rejects: None,
            limit: RejectLimit::Usual,
            threads: 1,
            memory: 1 << 30,
            resume: is_resumed,
            diff: None,
            movers: 0,
            html: None,
            cluster: is_on_cluster.then(|| Cluster {
                url: "http://127.0.0.1:1".to_owned(),
            }),
            store: None,
            from_store: false,
            to_store: None,
        }
    }

    /// What a job says and has when `before` was interrupted after its first part.
    fn after(before: &Job, now: &Job) -> (Vec<String>, Result<usize, String>) {
        let folder = JobFolder::open(&before.output).unwrap();
        folder.begin(&define(&plan(), before, &[])).unwrap();
        add_part(&folder);
        begin_again(&folder, now)
    }

    fn add_part(folder: &JobFolder) {
        let file = folder.unfinished("part");
        std::fs::write(&file, "row").unwrap();
        folder.publish(0, &file, None, &Part::default()).unwrap();
        assert_eq!(folder.parts().unwrap().len(), 1);
    }

    fn begin_again(folder: &JobFolder, now: &Job) -> (Vec<String>, Result<usize, String>) {
        let said = Mutex::new(Vec::new());
        let tell = |news: News<'_>| {
            if let News::Remark(text) = news {
                said.lock().unwrap().push(text.to_owned());
            }
        };
        let mut definition = define(&plan(), now, &[]);
        let parts = parts_before(now, &mut definition, folder, &tell);
        (said.into_inner().unwrap(), parts.map(|parts| parts.len()))
    }

    #[test]
    fn what_a_job_has_left_is_gone_on_with_or_discarded_and_what_is_said_of_it_is_true() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("scores.csv");
        let here = |resume| job(&output, resume, false);
        let there = job(&output, false, true);
        // Gone on with, where that was asked for.
        assert_eq!(after(&here(false), &here(true)), (vec![], Ok(1)));
        let (said, parts) = after(&here(false), &here(false));
        assert_eq!(parts, Ok(0));
        assert!(said[0].ends_with("; --resume goes on with it"), "{said:?}");
        // On a cluster nothing is gone on with, neither by the cluster nor by --resume on one machine.
        let (said, parts) = after(&here(false), &there);
        assert_eq!(parts, Ok(0));
        assert!(said[0].contains("without --cluster, --resume"), "{said:?}");
        for now in [&there, &here(false), &here(true)] {
            let (said, parts) = after(&there, now);
            assert_eq!(parts, Ok(0));
            assert!(
                said[0].contains("begun again") && !said[0].contains("--resume"),
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_in_the_way_of_resume_only() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("scores.csv");
        let folder = JobFolder::open(&output).unwrap();
        std::fs::write(folder.path().join("job.json"), "{").unwrap();
        let (_, refused) = begin_again(&folder, &job(&output, true, false));
        let refused = refused.unwrap_err();
        assert!(refused.contains("run without --resume"), "{refused}");
        let (said, parts) = begin_again(&folder, &job(&output, false, false));
        assert_eq!((said.len(), parts), (1, Ok(0)));
    }
}
