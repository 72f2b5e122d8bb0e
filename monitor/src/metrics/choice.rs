//! Which collectors are switched on, and which of them one scrape asks for, as node_exporter has it.

use super::{COLLECTORS, Collector, OPT_IN};

/// Collectors by name, in the order of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collectors(Vec<&'static str>);

impl Collectors {
    /// Those of the table that are wanted.
    pub fn new(wanted: impl Fn(&str) -> bool) -> Self {
        Self(COLLECTORS.iter().map(|collector| collector.name).filter(|name| wanted(name)).collect())
    }

    /// All.
    pub fn all() -> Self {
        Self::new(|_| true)
    }

    /// Those that nobody needs to ask for.
    pub fn defaults() -> Self {
        Self::new(|name| !OPT_IN.contains(&name))
    }

    /// Whether one of these is among them.
    pub fn has(&self, names: &[&str]) -> bool {
        self.0.iter().any(|name| names.contains(name))
    }

    /// What one scrape asks for with `collect[]` or `exclude[]`; all where it gives neither.
    ///
    /// # Errors
    /// One line: both are given, or one is not switched on.
    pub fn ask(&self, collect: &[&str], exclude: &[&str]) -> Result<Self, String> {
        if !collect.is_empty() && !exclude.is_empty() {
            return Err("collect[] and exclude[]: give one of them".to_owned());
        }
        if let Some(unknown) = collect.iter().chain(exclude).find(|name| !self.has(&[name])) {
            let all = Self::all().has(&[unknown]);
            let what = if all { "switched off" } else { "not known" };
            return Err(format!("collector {unknown:?} is {what}; there are: {}", self.0.join(", ")));
        }
        let is_asked = |name: &str| match collect.is_empty() {
            true => self.has(&[name]) && !exclude.contains(&name),
            false => collect.contains(&name),
        };
        Ok(Self::new(is_asked))
    }

    /// Their lines of the table.
    pub fn table(&self) -> Vec<Collector> {
        COLLECTORS.iter().filter(|collector| self.has(&[collector.name])).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_gets_what_it_asks_for_of_what_is_on() {
        let on = Collectors::new(|name| name != "drops");
        assert_eq!(on.ask(&[], &[]), Ok(on.clone()));
        let Collectors(asked) = on.ask(&["tcp", "traffic", "tcp"], &[]).expect("on");
        assert_eq!(asked, ["traffic", "tcp"]);
        let asked = on.ask(&[], &["tcp"]).expect("on");
        assert_eq!(asked, Collectors::new(|name| !["tcp", "drops"].contains(&name)));
        assert_eq!(asked.table().len(), COLLECTORS.len() - 2);
        let refused = |collect: &[&str], exclude: &[&str]| on.ask(collect, exclude).expect_err("refused");
        assert!(
            refused(&["drops"], &[]).starts_with("collector \"drops\" is switched off; there are: traffic, ")
        );
        assert!(refused(&[], &["x\ny"]).starts_with("collector \"x\\ny\" is not known; there are: "));
        assert_eq!(refused(&["tcp"], &["tcp"]), "collect[] and exclude[]: give one of them");
    }
}
