//! One model version: a folder `models/<name>/<version>/`.
//!
//! `model.onnx` is all it needs; `model.toml` says what the graph cannot, `golden.json` holds
//! outputs it must reproduce. A version is loaded whole or refused with a reason; nothing is
//! loaded while requests wait.

use std::path::Path;
use std::sync::Arc;

use onnx_ml::{Limits, Model};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::golden::Golden;
use super::manifest::{Manifest, VersionState};
use super::scoring::Scoring;
use super::statistics::Statistics;
use crate::features::view::View;
use crate::features::views::Views;
use crate::infer::Pace;
use crate::ledger::InferenceTemplate;

/// The largest `model.toml` or `golden.json` that is read, in bytes.
const MAX_SIDE_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A loaded version.
pub struct ModelVersion {
    pub name: String,
    pub version: String,
    /// SHA-256 over the bytes of `model.onnx` and `model.toml`.
    pub digest: [u8; 32],
    /// Shared with the version that the same files are under other views.
    pub graph: Arc<Model>,
    pub manifest: Option<Manifest>,
    /// How it is scored over a feature view, or why it is served raw only.
    pub scoring: Result<Scoring, Vec<String>>,
    /// Scores and inferences by it; shared by every load of this version.
    pub statistics: Arc<Statistics>,
    /// What the ledger's rows of its inferences have in common.
    pub ledger_template: InferenceTemplate,
    /// Whether it runs on a connection's thread.
    pub pace: Pace,
    /// What [`Files::digest`] was.
    pub files_digest: [u8; 32],
    /// The files it was built from.
    pub files: Arc<[FileDigest]>,
}

/// The names of the files that a version is made of.
pub const FILE_NAMES: [&str; 3] = ["model.onnx", "model.toml", "golden.json"];

/// A file of a version, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FileDigest {
    #[schema(example = "model.onnx")]
    pub name: &'static str,
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// The files of a version folder, read and not yet looked at.
pub struct Files {
    model: Vec<u8>,
    manifest: Option<Vec<u8>>,
    golden: Option<Vec<u8>>,
    /// SHA-256 over all of them: another one, and the version has changed.
    pub digest: [u8; 32],
}

impl Files {
    /// Reads the files in `folder`.
    ///
    /// # Errors
    /// Which one is missing, unreadable or too large.
    pub fn read(folder: &Path) -> Result<Files, String> {
        let model = read_file(&folder.join("model.onnx"), Limits::default().file_bytes)?
            .ok_or("model.onnx is missing")?;
        let manifest = read_file(&folder.join("model.toml"), MAX_SIDE_FILE_BYTES)?;
        let golden = read_file(&folder.join("golden.json"), MAX_SIDE_FILE_BYTES)?;
        let mut hasher = Sha256::new();
        for file in [Some(&model), manifest.as_ref(), golden.as_ref()] {
            // No file is not the same as an empty one, nor two files as their bytes in a row.
            let length = file.map_or(u64::MAX, |file| file.len() as u64);
            hasher.update(length.to_le_bytes());
            hasher.update(file.map_or(&[][..], Vec::as_slice));
        }
        Ok(Files {
            model,
            manifest,
            golden,
            digest: hasher.finalize().into(),
        })
    }

    /// The most bytes that are read of the file of that name.
    pub fn limit_of(name: &str) -> u64 {
        match name {
            "model.onnx" => Limits::default().file_bytes,
            _ => MAX_SIDE_FILE_BYTES,
        }
    }

    /// The files that are there, with their digests.
    pub fn digests(&self) -> Vec<FileDigest> {
        let files = [
            Some(&self.model),
            self.manifest.as_ref(),
            self.golden.as_ref(),
        ];
        let files = FILE_NAMES.into_iter().zip(files);
        files
            .filter_map(|(name, bytes)| bytes.map(|bytes| (name, bytes)))
            .map(|(name, bytes)| FileDigest {
                name,
                bytes: bytes.len() as u64,
                sha256: hexadecimal(&Sha256::digest(bytes)),
            })
            .collect()
    }

    /// SHA-256 over the bytes of `model.onnx` and `model.toml`: what the version is told by.
    pub fn bundle_digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update((self.model.len() as u64).to_le_bytes());
        hasher.update(&self.model);
        hasher.update(self.manifest.as_deref().unwrap_or_default());
        hasher.finalize().into()
    }

    /// The graph, ready to run.
    ///
    /// # Errors
    /// What the runtime does not take.
    pub fn graph(&self) -> Result<Model, String> {
        Model::from_bytes_with(&self.model, &Limits::default())
            .map_err(|error| format!("model.onnx: {error}"))
    }

    /// `model.toml`, if there is one.
    ///
    /// # Errors
    /// The line that is wrong.
    pub fn manifest(&self) -> Result<Option<Manifest>, String> {
        self.manifest.as_deref().map(parse_manifest).transpose()
    }

    /// `golden.json`, if there is one.
    ///
    /// # Errors
    /// Line and column of what is wrong.
    pub fn golden(&self) -> Result<Option<Golden>, String> {
        self.golden.as_deref().map(Golden::parse).transpose()
    }
}

/// Bytes as digests are shown.
pub fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

impl std::fmt::Debug for ModelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelVersion({}/{})", self.name, self.version)
    }
}

impl ModelVersion {
    /// Whether its manifest says that it is not to answer unless it is named.
    pub fn is_candidate(&self) -> bool {
        let model = self.manifest.as_ref().map(|manifest| &manifest.model);
        model.is_some_and(|model| model.state == Some(VersionState::Candidate))
    }

    /// Builds the version from its files and checks it against the views.
    ///
    /// # Errors
    /// The reason the version cannot be served, naming the file: refused by the runtime, a
    /// manifest that does not fit graph or views, a golden row not reproduced. A version without
    /// manifest is not refused for what does not bind: see [`ModelVersion::scoring`].
    pub fn build(
        files: Files,
        name: &str,
        version: &str,
        views: &Views,
        statistics: Arc<Statistics>,
    ) -> Result<Self, String> {
        let digest = files.bundle_digest();
        let graph = files.graph()?;
        let manifest = files.manifest()?;
        if let Some(golden) = files.golden()? {
            golden.check(&graph)?;
        }
        let scoring = bind(&graph, manifest.as_ref(), views)?;
        Ok(ModelVersion {
            name: name.to_owned(),
            version: version.to_owned(),
            digest,
            graph: Arc::new(graph),
            manifest,
            scoring,
            statistics,
            ledger_template: InferenceTemplate::new(name, version, &digest),
            pace: Pace::default(),
            files_digest: files.digest,
            files: files.digests().into(),
        })
    }

    /// The same version under another number.
    pub fn renumbered(self, version: &str) -> Self {
        let ledger_template = InferenceTemplate::new(&self.name, version, &self.digest);
        ModelVersion {
            version: version.to_owned(),
            ledger_template,
            ..self
        }
    }

    /// The same version over other views.
    ///
    /// # Errors
    /// As [`ModelVersion::build`]: a manifest that does not fit them.
    pub fn rebound(&self, views: &Views) -> Result<Self, String> {
        Ok(ModelVersion {
            name: self.name.clone(),
            version: self.version.clone(),
            digest: self.digest,
            graph: Arc::clone(&self.graph),
            manifest: self.manifest.clone(),
            scoring: bind(&self.graph, self.manifest.as_ref(), views)?,
            statistics: Arc::clone(&self.statistics),
            ledger_template: InferenceTemplate::new(&self.name, &self.version, &self.digest),
            pace: Pace::default(),
            files_digest: self.files_digest,
            files: Arc::clone(&self.files),
        })
    }
}

/// How a graph is scored over the views. One with a manifest has to bind; one without may be served raw.
///
/// # Errors
/// What of the manifest does not fit; inside, what does not bind by its name.
pub fn bind(
    graph: &Model,
    manifest: Option<&Manifest>,
    views: &Views,
) -> Result<Result<Scoring, Vec<String>>, String> {
    let Some(manifest) = manifest else {
        return Ok(bind_by_name(graph, views));
    };
    let view = view_of(manifest, views).map_err(|problem| format!("model.toml: {problem}"))?;
    let bound = Scoring::bind(graph, Some(manifest), view);
    let bound = bound.map_err(|problems| format!("model.toml: {}", problems.join("; ")))?;
    Ok(Ok(bound))
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("model.toml: {error}"))?;
    let manifest: Manifest = toml::from_str(text)
        .map_err(|error| format!("model.toml: {}", error.to_string().trim_end()))?;
    if let Some(label) = &manifest.label {
        label
            .check()
            .map_err(|problem| format!("model.toml: {problem}"))?;
    }
    Ok(manifest)
}

fn view_of<'a>(manifest: &Manifest, views: &'a Views) -> Result<&'a Arc<View>, String> {
    let names: Vec<&str> = views.all().iter().map(|view| view.name.as_str()).collect();
    match (&manifest.model.view, views.all()) {
        (Some(name), _) => views.get(name).ok_or_else(|| {
            format!(
                "[model] view {name:?}: the feature views are: {}",
                names.join(", ")
            )
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!(
            "[model] view is missing; the feature views are: {}",
            names.join(", ")
        )),
    }
}

/// Without a manifest the first view that has every input is taken.
fn bind_by_name(graph: &Model, views: &Views) -> Result<Scoring, Vec<String>> {
    let mut problems = Vec::new();
    for view in views.all() {
        match Scoring::bind(graph, None, view) {
            Ok(scoring) => return Ok(scoring),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        problems.push("there is no feature view to bind to".to_owned());
    }
    Err(problems)
}

/// The file's bytes, `None` when there is no such file.
fn read_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, String> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let size = match std::fs::metadata(path) {
        // What is no file (a pipe, a folder) might never end.
        Ok(metadata) if !metadata.is_file() => return Err(format!("{name}: is not a file")),
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{name}: {error}")),
    };
    if size > limit {
        return Err(format!("{name}: is {size} bytes; at most {limit} are read"));
    }
    std::fs::read(path)
        .map(Some)
        .map_err(|error| format!("{name}: {error}"))
}
