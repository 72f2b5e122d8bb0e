//! Reads Prometheus' text format, strictly: what this parser does not understand fails the test.

use std::collections::BTreeMap;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// One scrape: every series with its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(BTreeMap<(String, Labels), f64>);

impl Metrics {
    /// Parses the body of an answer.
    ///
    /// # Panics
    /// On a line that is no comment and no series, and on a series that appears twice.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (series, value) = parse_line(line).unwrap_or_else(|| panic!("no series: {line:?}"));
            assert!(all.insert(series, value).is_none(), "twice in one scrape: {line}");
        }
        Self(all)
    }

    /// The series of one name whose labels contain all of `labels`.
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = (&Labels, f64)> {
        let matches = move |series: &Labels| {
            labels.iter().all(|(label, value)| series.get(*label).map(String::as_str) == Some(*value))
        };
        let named = self.0.iter().filter(move |((series, _), _)| series == name);
        named.filter(move |((_, series), _)| matches(series)).map(|((_, series), value)| (series, *value))
    }

    /// The value of the one series of this name whose labels contain `labels`.
    ///
    /// # Panics
    /// When there are several.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.select(name, labels).map(|(_, value)| value);
        let value = found.next();
        assert!(found.next().is_none(), "more than one {name} with {labels:?}");
        value
    }

    /// Sum of the series of one name whose labels contain `labels`: 0 when there is none.
    ///
    /// # Panics
    /// When a value is no whole number.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let whole = |(series, value): (&Labels, f64)| {
            assert!(value >= 0.0 && value.fract() == 0.0, "{name} {series:?} is {value}");
            value as u64
        };
        self.select(name, labels).map(whole).sum()
    }

    /// Each series less its value in an earlier scrape; a series that is new counts from 0.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |(key, value): (&(String, Labels), &f64)| {
            (key.clone(), value - earlier.0.get(key).copied().unwrap_or_default())
        };
        Self(self.0.iter().map(less).collect())
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_line(line: &str) -> Option<((String, Labels), f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value = match rest.trim() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => number.parse().ok()?,
    };
    Some(((name.to_owned(), labels), value))
}

/// Labels up to the closing brace, and what follows it.
fn parse_labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (end, '"') => break end,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    quoted @ ('"' | '\\') => quoted,
                    _ => return None,
                }),
                (_, plain) => value.push(plain),
            }
        };
        labels.insert(name.to_owned(), value).is_none().then_some(())?;
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn series_are_found_by_some_of_their_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na{x=\"1\",y=\"q\\\"u,}\\\\o\"} 3\na{x=\"2\",y=\"\"} 4\nb 1e3\nc +Inf\n",
        );
        assert_eq!(metrics.count("a", &[]), 7);
        assert_eq!(metrics.value("a", &[("y", "q\"u,}\\o")]), Some(3.0));
        assert_eq!(metrics.value("a", &[("x", "3")]), None);
        assert_eq!(metrics.value("b", &[]), Some(1000.0));
        assert_eq!(metrics.value("c", &[]), Some(f64::INFINITY));
        assert_eq!(metrics.len(), 4);
    }

    #[test]
    fn a_later_scrape_less_an_earlier_one_is_what_happened_between() {
        let earlier = Metrics::parse("a{x=\"1\"} 3\n");
        let later = Metrics::parse("a{x=\"1\"} 5\na{x=\"2\"} 7\n");
        assert_eq!(later.since(&earlier), Metrics::parse("a{x=\"1\"} 2\na{x=\"2\"} 7\n"));
    }

    #[test]
    #[should_panic(expected = "twice in one scrape")]
    fn a_series_written_twice_is_refused() {
        assert!(!Metrics::parse("a{x=\"1\"} 3\na{x=\"1\"} 3\n").is_empty());
    }

    #[test]
    #[should_panic(expected = "no series")]
    fn a_line_without_a_value_is_refused() {
        assert!(!Metrics::parse("a{x=\"1\" 3\n").is_empty());
    }
}
