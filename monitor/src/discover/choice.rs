//! Which of what is found is watched: by the label of a namespace, by the name of an interface. Pure.

use regex::Regex;

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Of namespaces, by label.
    pub netns: Pattern,
    /// Of interfaces, by name inside their namespace.
    pub interface: Pattern,
    /// Whether loopback is counted too.
    pub lo: bool,
}

/// A choice by name.
#[derive(Clone, Debug, Default)]
pub enum Pattern {
    /// All.
    #[default]
    All,
    /// Those that match, from the first character to the last.
    Only(Regex),
    /// All others.
    Not(Regex),
}

impl Pattern {
    /// From the values of `FLAG.include` and `FLAG.exclude`.
    ///
    /// # Errors
    /// One line: both are given, or one is no regular expression.
    pub fn new(flag: &str, include: Option<&str>, exclude: Option<&str>) -> Result<Self, String> {
        let whole = |which, text| whole(text).map_err(|why| format!("{flag}.{which} {text:?}: {why}"));
        match (include, exclude) {
            (None, None) => Ok(Self::All),
            (Some(include), None) => Ok(Self::Only(whole("include", include)?)),
            (None, Some(exclude)) => Ok(Self::Not(whole("exclude", exclude)?)),
            (Some(_), Some(_)) => Err(format!("{flag}.include and {flag}.exclude: give one of them")),
        }
    }

    /// Whether a name is chosen.
    pub fn takes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(pattern) => pattern.is_match(name),
            Self::Not(pattern) => !pattern.is_match(name),
        }
    }

    /// Whether names matter at all.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }
}

/// An expression that has to match the whole text.
fn whole(text: &str) -> Result<Regex, String> {
    // By itself first: `a)|(b` would be complete in parentheses.
    Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$"))).map_err(|error| {
        let said = error.to_string();
        let last = said.lines().next_back().unwrap_or_default().trim();
        last.strip_prefix("error: ").unwrap_or(last).to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(include: Option<&str>, exclude: Option<&str>) -> Result<Pattern, String> {
        Pattern::new("--watch.netns", include, exclude)
    }

    #[test]
    fn expressions_match_whole_names() {
        let only = pattern(Some("web|db.*"), None).expect("an expression");
        let takes = |pattern: &Pattern| ["web", "web2", "a-web", "db", "db7"].map(|name| pattern.takes(name));
        assert_eq!(takes(&only), [true, false, false, true, true]);
        let not = pattern(None, Some("web|db.*")).expect("an expression");
        assert_eq!(takes(&not), [false, true, true, false, false]);
        assert_eq!(takes(&pattern(None, None).expect("nothing")), [true; 5]);
        assert!(!pattern(Some(""), None).expect("an expression").takes("web"), "the empty name only");
    }

    #[test]
    fn what_is_wrong_is_one_line_that_names_the_flag() {
        let refused = |include, exclude| pattern(include, exclude).expect_err("refused");
        assert_eq!(refused(Some("a(b"), None), "--watch.netns.include \"a(b\": unclosed group");
        assert_eq!(refused(None, Some("a)|(b")), "--watch.netns.exclude \"a)|(b\": unopened group");
        assert_eq!(
            refused(Some("a"), Some("b")),
            "--watch.netns.include and --watch.netns.exclude: give one of them"
        );
        assert_eq!(refused(Some("(a{999}){999}"), None).lines().count(), 1);
    }
}
