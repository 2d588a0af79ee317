//! `bellwether model deploy`: a version folder sent to a running server.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value as Json;

use crate::cli::output;
use crate::cli::remote::ServerArgs;
use crate::models::validate::not_a_version;
use crate::models::version::FILE_NAMES;
use crate::priority;

/// Send a version folder to a running server, which gives it the next number and serves it
///
/// The server loads it, binds it to features and runs its golden rows; a version that is refused is not
/// kept. The first version of a model is its champion. Later ones are candidates, which answer only when
/// they are named, unless --promote makes them the champion at once.
#[derive(Args)]
#[command(after_help = "Examples:
  bellwether model deploy churn models/churn/2
  bellwether model deploy churn build/churn --promote --reason \"retrained on May\"")]
pub struct DeployArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Make it the champion at once
    #[arg(long)]
    promote: bool,
    /// Why, for the audit row
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// The model; a new one when the server has none of that name
    name: String,
    /// The version's folder, with model.onnx and, where there are, model.toml and golden.json
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Sends the files; done when the version is served.
///
/// # Errors
/// A file that cannot be read, or why the server refuses.
pub fn run(args: &DeployArgs) -> Result<(), String> {
    // A server on the same machine answers others meanwhile.
    priority::give_way();
    let remote = args.server.connect()?;
    let boundary = format!("bellwether-{}", crate::clock::new_id().simple());
    let bytes = size_of(&args.folder)?;
    let bar = output::progress_of_upload(bytes, format!("deploying {}", args.name));
    let (length, mut body) = body_of(&args.folder, &boundary, &bar)?;
    let path = format!(
        "/v1/models/{}/versions?promote={}&reason={}",
        percent_encode(&args.name),
        args.promote,
        percent_encode(&args.reason)
    );
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let answered = remote.upload(&path, &content_type, length, &mut *body);
    bar.finish_and_clear();
    let reply = answered?.json()?;
    if args.json {
        return output::json(&reply);
    }
    let text = |field: &str| reply[field].as_str().unwrap_or_default().to_owned();
    let before = match &reply["previous_champion"] {
        Json::String(before) => format!(", in the place of version {before}"),
        _ => String::new(),
    };
    output::line(format_args!(
        "model {} version {}: {}{before}; loaded in {:.0} ms, digest {:.12}",
        text("model"),
        text("version"),
        text("state"),
        reply["load_ms"].as_f64().unwrap_or_default(),
        text("digest")
    ));
    let unbound = reply["unbound"].as_array().into_iter().flatten();
    let unbound: Vec<&str> = unbound.filter_map(Json::as_str).collect();
    if !unbound.is_empty() {
        output::note(format_args!(
            "it is served under /v2 only, not by /v1/score: {}",
            unbound.join("; ")
        ));
    }
    Ok(())
}

fn size_of(folder: &Path) -> Result<u64, String> {
    if let Some(problem) = not_a_version(folder) {
        return Err(format!("{}: {problem}", folder.display()));
    }
    let sizes = FILE_NAMES
        .iter()
        .map(|name| std::fs::metadata(folder.join(name)));
    Ok(sizes
        .map(|found| found.map_or(0, |found| found.len()))
        .sum())
}

/// The files that there are as parts of a body, read while it is sent; how long it is, and what reads it.
fn body_of(
    folder: &Path,
    boundary: &str,
    bar: &ProgressBar,
) -> Result<(u64, Box<dyn Read>), String> {
    let mut length = 0;
    let mut body: Box<dyn Read> = Box::new(std::io::empty());
    for name in FILE_NAMES {
        let path = folder.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let bytes = file.metadata().map(|metadata| metadata.len());
        let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
        // A file that grows meanwhile is not sent further than the length that was said.
        let file = bar.wrap_read(file.take(bytes));
        let end = Cursor::new("\r\n");
        length += (head.len() + 2) as u64 + bytes;
        body = Box::new(body.chain(Cursor::new(head)).chain(file).chain(end));
    }
    let end = format!("--{boundary}--\r\n");
    length += end.len() as u64;
    Ok((length, Box::new(body.chain(Cursor::new(end)))))
}

/// Text as it may stand in a path or a query.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_there_are_become_parts() {
        let folder = tempfile::tempdir().unwrap();
        let problem = size_of(folder.path()).unwrap_err();
        assert!(problem.contains("the folder of one version"), "{problem}");
        std::fs::write(folder.path().join("model.onnx"), "graph").unwrap();
        std::fs::write(folder.path().join("golden.json"), "{}").unwrap();
        std::fs::write(folder.path().join("report.md"), "no part").unwrap();
        assert_eq!(size_of(folder.path()), Ok(7));
        let mut text = String::new();
        let bar = ProgressBar::hidden();
        let (length, mut body) = body_of(folder.path(), "b", &bar).unwrap();
        body.read_to_string(&mut text).unwrap();
        assert_eq!(length, text.len() as u64);
        assert_eq!(bar.position(), 7);
        let part = |name: &str, content: &str| {
            format!(
                "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n{content}\r\n"
            )
        };
        let expected = [
            part("model.onnx", "graph"),
            part("golden.json", "{}"),
            "--b--\r\n".into(),
        ];
        assert_eq!(text, expected.concat());
    }

    #[test]
    fn names_are_written_as_paths_have_them() {
        assert_eq!(percent_encode("churn 2/ä?"), "churn%202%2F%C3%A4%3F");
    }
}
