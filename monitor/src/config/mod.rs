//! The file: read, checked, and turned into a topology that cannot be wrong. Every mistake is reported with its line.

mod check;
mod file;
mod read;

use std::{fmt, fs, ops::Range, path::Path};

pub(crate) use self::check::of_one_host;
use crate::topology::Topology;

/// A commented example, which is valid.
pub const EXAMPLE: &str = include_str!("example.toml");

/// A namespace and a veth pair, as everybody makes them by hand first.
pub const ARTICLE: &str = include_str!("article.toml");

/// What a container engine sets up.
pub const DOCKER0: &str = include_str!("docker0.toml");

/// The topology of the demonstration.
pub const DEMO: &str = include_str!("demo.toml");

/// Everything wrong with one file.
#[derive(Debug)]
pub struct ConfigErrors {
    /// Name of the file.
    pub file: String,
    /// In the order of the file; never empty.
    pub errors: Vec<ConfigError>,
}

/// One thing wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Line and column from 1; absent where the file could not be read at all.
    pub at: Option<(usize, usize)>,
    /// What is wrong, why, and what to try.
    pub what: String,
}

impl std::error::Error for ConfigErrors {}

/// A line for each mistake: `FILE:LINE:COLUMN: what`.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { at, what }) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            match at {
                Some((line, column)) => write!(f, "{separator}{}:{line}:{column}: {what}", self.file)?,
                None => write!(f, "{separator}{}: {what}", self.file)?,
            }
        }
        Ok(())
    }
}

/// Reads and checks a file.
///
/// # Errors
/// It cannot be read, or what is wrong in it.
pub fn load(path: &Path) -> Result<Topology, ConfigErrors> {
    let file = path.display().to_string();
    let unreadable =
        |what: String| ConfigErrors { file: file.clone(), errors: vec![ConfigError { at: None, what }] };
    let bytes = fs::read(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let at = Some(place(&before, &(before.len()..before.len())));
        let what =
            "the file is not UTF-8 text: this byte begins no character; save the file as UTF-8".to_owned();
        ConfigErrors { file: file.clone(), errors: vec![ConfigError { at, what }] }
    })?;
    parse(&text, &file)
}

/// Checks a text that stands in the file of this name.
///
/// # Errors
/// What is wrong in it.
pub fn parse(text: &str, file: &str) -> Result<Topology, ConfigErrors> {
    let mut errors = Vec::new();
    let written = read::read(text, &mut |span, what| errors.push((span, what)));
    // What could not be read would be missed at every place that refers to it.
    let topology = match errors.is_empty() {
        true => check::check(&written, &mut |span, what| errors.push((span, what))),
        false => Topology::default(),
    };
    if errors.is_empty() {
        return Ok(topology);
    }
    errors.sort_by_key(|(span, _)| span.start);
    let errors =
        errors.into_iter().map(|(span, what)| ConfigError { at: Some(place(text, &span)), what }).collect();
    Err(ConfigErrors { file: file.to_owned(), errors })
}

fn place(text: &str, span: &Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The JSON schema of the file.
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&schemars::schema_for!(file::File)).unwrap_or_default();
    text.push('\n');
    text
}
