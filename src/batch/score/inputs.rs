//! Which files are read, and what each of them was when the job began.
//!
//! An input is a file, a folder with everything under it, or a pattern: `*` and `?` stand for any
//! characters of one name, `**` for any folders. Files are read in the order of their paths. Names that
//! begin with `.` or `_` are passed over in folders and by patterns, as table formats mean them, and so are
//! folders of unfinished jobs.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// The formats that are read, by extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    Ndjson,
    Parquet,
    Arrow,
}

impl Format {
    /// The format that the extension of `file` stands for.
    pub fn of(file: &Path) -> Option<Format> {
        let extension = file.extension()?.to_ascii_lowercase();
        match extension.to_str()? {
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            "parquet" => Some(Format::Parquet),
            "arrow" | "feather" | "ipc" => Some(Format::Arrow),
            _ => None,
        }
    }
}

/// A file that is read, as it was when the job began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// XXH3-128 of its bytes, in hexadecimal.
    pub xxh3: String,
}

/// How deep folders may nest, so that one that links to itself has an end.
const MAX_DEPTH: usize = 32;
/// The most files of one job.
const MAX_FILES: usize = 100_000;

/// The files that `inputs` stand for, in the order in which they are read.
///
/// # Errors
/// An input that leads to no file, or a file that is named twice.
pub fn find(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for input in inputs {
        let mut found = Vec::new();
        if input.is_dir() {
            walk(input, &["**".to_owned(), "*".to_owned()], 0, &mut found)?;
        } else if input.exists() {
            found.push(input.clone());
        } else {
            matching(input, &mut found)?;
        }
        if found.is_empty() {
            let input = input.display();
            return Err(format!(
                "--input {input}: no such file, and no file matches"
            ));
        }
        found.sort();
        found.dedup();
        paths.append(&mut found);
    }
    if paths.len() > MAX_FILES {
        let count = paths.len();
        return Err(format!("--input: {count} files, at most {MAX_FILES}"));
    }
    let mut seen = std::collections::HashSet::new();
    // By any name: links and other spellings lead to the same rows.
    let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    let twice = paths.iter().find(|path| !seen.insert(real(path)));
    if let Some(path) = twice {
        let path = path.display();
        return Err(format!(
            "--input: {path} is named twice; its rows would be scored twice"
        ));
    }
    Ok(paths)
}

/// Files with their digests.
///
/// # Errors
/// A file that cannot be read, or one of no known format.
pub fn describe(paths: Vec<PathBuf>) -> Result<Vec<InputFile>, String> {
    paths.into_iter().map(describe_file).collect()
}

fn describe_file(path: PathBuf) -> Result<InputFile, String> {
    if Format::of(&path).is_none() {
        return Err(format!(
            "{}: expected a file ending in .parquet, .csv, .ndjson, .jsonl, .arrow, .feather or .ipc",
            path.display()
        ));
    }
    let digest = digest(&path).map_err(|error| format!("{}: {error}", path.display()));
    let (bytes, xxh3) = digest?;
    Ok(InputFile { path, bytes, xxh3 })
}

/// The length of a file, and the XXH3-128 of its bytes.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 1024 * 1024];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, format!("{:032x}", hasher.digest128())));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// The files that a pattern matches.
fn matching(pattern: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let mut folder = PathBuf::new();
    let mut parts: Vec<String> = Vec::new();
    for component in pattern.components() {
        let text = component.as_os_str().to_string_lossy();
        let is_pattern = matches!(component, Component::Normal(_)) && text.contains(['*', '?']);
        if parts.is_empty() && !is_pattern {
            folder.push(component);
        } else {
            parts.push(text.into_owned());
        }
    }
    if parts.is_empty() {
        return Ok(());
    }
    if folder.as_os_str().is_empty() {
        folder.push(".");
    }
    walk(&folder, &parts, 0, found)?;
    // Written as they were asked for.
    for path in found {
        if let Ok(short) = path.strip_prefix("./") {
            *path = short.to_owned();
        }
    }
    Ok(())
}

/// Adds the files under `folder` whose path matches `parts`.
fn walk(
    folder: &Path,
    parts: &[String],
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if depth > MAX_DEPTH {
        let folder = folder.display();
        return Err(format!("{folder}: folders nest deeper than {MAX_DEPTH}"));
    }
    let Some((first, rest)) = parts.split_first() else {
        return Ok(());
    };
    if first == "**" && !rest.is_empty() {
        // No folder at all, too.
        walk(folder, rest, depth, found)?;
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(['.', '_']) {
            continue;
        }
        let path = entry.path();
        let is_folder = path.is_dir();
        // Parts of an output that another job has not finished.
        if is_folder && name.ends_with(".job") {
            continue;
        }
        // What an earlier job turned away.
        if name.ends_with(".rejects.ndjson") {
            continue;
        }
        if first == "**" {
            if is_folder {
                walk(&path, parts, depth + 1, found)?;
            }
        } else if matches(first, &name) {
            match (rest.is_empty(), is_folder) {
                (true, false) => found.push(path),
                (false, true) => walk(&path, rest, depth + 1, found)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether a name matches a pattern of `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut next) = (0, 0);
    // Where the last star was, and up to which letter it stands for them.
    let mut star: Option<(usize, usize)> = None;
    while next < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, next));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == name[next] => {
                at += 1;
                next += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    at = place + 1;
                    next = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_letters() {
        for (pattern, name, expected) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.gz", false),
            ("part-??.parquet", "part-07.parquet", true),
            ("part-??.parquet", "part-7.parquet", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn folders_and_patterns_give_files_in_the_order_of_their_paths() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b/2.csv",
            "b/1.csv",
            "a.csv",
            "_SUCCESS",
            ".hidden.csv",
            "d.csv.job/part-000000.csv",
            "c/d/3.csv",
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        let names = |input: &str| -> Vec<String> {
            let files = find(&[dir.path().join(input)]).unwrap();
            let short = |file: PathBuf| file.strip_prefix(dir.path()).unwrap().to_owned();
            files
                .into_iter()
                .map(|file| short(file).to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names(""), ["a.csv", "b/1.csv", "b/2.csv", "c/d/3.csv"]);
        assert_eq!(
            names("**/*.csv"),
            ["a.csv", "b/1.csv", "b/2.csv", "c/d/3.csv"]
        );
        assert_eq!(names("b/?.csv"), ["b/1.csv", "b/2.csv"]);
        assert_eq!(names("*/1.csv"), ["b/1.csv"]);
        let missing = find(&[dir.path().join("*.parquet")]).unwrap_err();
        assert!(missing.contains("no file matches"), "{missing}");
        let twice = [dir.path().join("a.csv"), dir.path().to_owned()];
        assert!(find(&twice).unwrap_err().contains("named twice"));
    }
}
