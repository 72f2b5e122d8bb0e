//! From text to the file as written. A mistake of syntax or shape in one table does not hide those in the next.

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{check::Report, file::File};

/// What could be read; it is only whole when nothing was reported.
pub(super) fn read(text: &str, report: Report<'_>) -> File {
    let mut file = File::default();
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            say(&error, 0..0, report);
            return file;
        }
    };
    for (key, value) in table.into_inner() {
        match key.get_ref().as_ref() {
            "bridge" => file.bridge = tables(value, report),
            "namespace" => file.namespace = tables(value, report),
            "veth" => file.veth = tables(value, report),
            "allow" => file.allow = tables(value, report),
            other => {
                let other = other.escape_debug();
                report(
                    key.span(),
                    format!(
                        "unknown field `{other}`, expected one of `allow`, `bridge`, `namespace`, `veth`"
                    ),
                );
            }
        }
    }
    file
}

/// Each table by itself, so that every one with a mistake is reported.
fn tables<T: DeserializeOwned>(value: Spanned<DeValue<'_>>, report: Report<'_>) -> Vec<T> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Array(items) => items.into_iter().filter_map(|item| table(item, report)).collect(),
        // Anything else is refused in serde's own words.
        other => table(Spanned::new(span, other), report).unwrap_or_default(),
    }
}

fn table<T: DeserializeOwned>(value: Spanned<DeValue<'_>>, report: Report<'_>) -> Option<T> {
    let span = value.span();
    T::deserialize(ValueDeserializer::from(value)).map_err(|error| say(&error, span, report)).ok()
}

fn say(error: &toml::de::Error, otherwise: std::ops::Range<usize>, report: Report<'_>) {
    report(error.span().unwrap_or(otherwise), error.message().trim().replace('\n', ", "));
}
