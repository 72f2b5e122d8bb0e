//! `netns-monitor.toml(5)`: the file, from the schema that `netns-monitor config schema` prints.

use std::io;

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use serde_json::Value;

use super::{DATE, MANUAL, Page, SOURCE};
use crate::config;

pub(super) fn page() -> io::Result<Page> {
    let schema: Value = serde_json::from_str(&config::schema())?;
    let mut roff = Roff::new();
    roff.control("TH", ["NETNS-MONITOR.TOML", "5", DATE, SOURCE, MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("netns-monitor.toml - the namespaces, bridges and veth pairs that shall be")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A TOML file that netns-monitor brings the host to (apply) and keeps it at (agent). What is wrong in it is told with \
         its line (config check). Keys that are not told here are refused. Everything is optional that is not marked required.",
    )]);
    Tables { schema: &schema, roff: &mut roff, said: Vec::new() }.root();
    roff.control("SH", ["EXAMPLE"]).control("EX", []);
    for line in config::EXAMPLE.lines() {
        roff.text([roman(line)]);
    }
    roff.control("EE", []);
    roff.control("SH", ["SEE ALSO"]);
    let pages = ["netns-monitor", "netns-monitor-config", "netns-monitor-apply", "netns-monitor-agent"];
    let each = pages.iter().enumerate();
    let text: Vec<Inline> = each
        .flat_map(|(at, name)| [bold(*name), roman(if at + 1 == pages.len() { "(1)" } else { "(1), " })])
        .collect();
    roff.text(text);
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;
    Ok(Page { file: "netns-monitor.toml.5".to_owned(), text })
}

/// Writes tables, each type once.
struct Tables<'a> {
    schema: &'a Value,
    roff: &'a mut Roff,
    /// Types that were written, with the path that they were written under.
    said: Vec<(&'a str, String)>,
}

/// What a value may be.
#[derive(Default)]
struct Kind<'a> {
    /// In words.
    word: String,
    /// The type of a table, if it is one.
    table: Option<&'a str>,
    /// Fixed words with what each means.
    choices: Vec<(String, &'a str)>,
}

impl<'a> Tables<'a> {
    fn root(&mut self) {
        // First what the others refer to.
        for key in ["bridge", "namespace", "veth", "allow"] {
            let Some(property) = self.schema.pointer(&format!("/properties/{key}")) else { continue };
            let kind = self.kind(property);
            self.roff.control("SH", [format!("[[{key}]]").as_str()]);
            self.text(description(property).unwrap_or_default());
            if let Some(table) = kind.table {
                self.table(table, key);
            }
        }
    }

    /// The keys of a type; after them the types of those that are tables themselves.
    fn table(&mut self, name: &'a str, path: &str) {
        self.said.push((name, path.to_owned()));
        let Some(of) = self.definition(name) else { return };
        let required: Vec<&str> = of
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(properties) = of.get("properties").and_then(Value::as_object) else { return };
        let mut keys: Vec<(&'a String, &'a Value)> = properties.iter().collect();
        keys.sort_by_key(|(key, _)| !required.contains(&key.as_str()));
        let mut inner = Vec::new();
        for (key, property) in keys {
            let Kind { word, table, choices } = self.kind(property);
            let mut line = vec![bold(key.as_str()), roman(" ("), italic(word)];
            if required.contains(&key.as_str()) {
                line.push(roman(", required"));
            }
            if let Some(default) =
                property.get("default").filter(|value| value.is_string() || value.is_boolean())
            {
                line.push(roman(format!(", {default} when absent")));
            }
            line.push(roman(")"));
            self.roff.control("TP", []).text(line);
            let text = description(property).map(ToOwned::to_owned);
            let text = text.or_else(|| {
                table.and_then(|table| description(self.definition(table)?)).map(ToOwned::to_owned)
            });
            self.text(&text.unwrap_or_default());
            for (choice, what) in choices {
                self.roff.control("br", []).text([bold(choice), roman(format!(": {what}"))]);
            }
            if let Some(table) = table {
                inner.push((table, format!("{path}.{key}")));
            }
        }
        for (table, path) in inner {
            self.roff.control("SS", [path.as_str()]);
            match self.said.iter().find(|(said, _)| *said == table) {
                Some((_, first)) => {
                    let line = [roman("The same keys as "), bold(first.as_str()), roman(".")];
                    self.roff.text(line);
                }
                None => {
                    self.text(self.definition(table).and_then(description).unwrap_or_default());
                    self.table(table, &path);
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        let text = text.replace('\n', " ");
        if !text.is_empty() {
            self.roff.text([roman(text)]);
        }
    }

    fn definition(&self, name: &str) -> Option<&'a Value> {
        self.schema.pointer(&format!("/$defs/{name}"))
    }

    fn kind(&self, of: &'a Value) -> Kind<'a> {
        if let Some(name) = of.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
            let Some(definition) = self.definition(name) else { return Kind::default() };
            let is_table = definition.get("properties").is_some();
            return match is_table {
                true => Kind { word: "table".to_owned(), table: Some(name), choices: Vec::new() },
                false => self.kind(definition),
            };
        }
        for key in ["anyOf", "oneOf"] {
            let Some(all) = of.get(key).and_then(Value::as_array) else { continue };
            let kinds = all.iter().filter(|one| one.get("type").is_none_or(|kind| kind != "null"));
            return kinds.map(|one| self.kind(one)).fold(Kind::default(), |mut sum, kind| {
                if !sum.word.split(" or ").any(|word| word == kind.word) {
                    sum.word = if sum.word.is_empty() {
                        kind.word
                    } else {
                        format!("{} or {}", sum.word, kind.word)
                    };
                }
                sum.table = sum.table.or(kind.table);
                sum.choices.extend(kind.choices);
                sum
            });
        }
        let words =
            of.get("const").into_iter().chain(of.get("enum").and_then(Value::as_array).into_iter().flatten());
        let choices: Vec<_> =
            words.map(|word| (word.to_string(), description(of).unwrap_or_default())).collect();
        if !choices.is_empty() {
            return Kind { word: "one of the words below".to_owned(), table: None, choices };
        }
        let kind = match of.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("any")
            }
            _ => "any",
        };
        match (kind, of.get("items"), of.get("additionalProperties")) {
            ("array", Some(items), _) => {
                let Kind { word, table, choices } = self.kind(items);
                Kind { word: format!("list of {word}s"), table, choices }
            }
            ("array", None, _) => Kind { word: "list of two strings".to_owned(), ..Kind::default() },
            ("object", _, Some(values)) if values.is_object() => {
                let Kind { word, .. } = self.kind(values);
                Kind { word: format!("table of {word} by name"), ..Kind::default() }
            }
            (kind, ..) => Kind { word: kind.to_owned(), ..Kind::default() },
        }
    }
}

fn description(of: &Value) -> Option<&str> {
    of.get("description").and_then(Value::as_str)
}
