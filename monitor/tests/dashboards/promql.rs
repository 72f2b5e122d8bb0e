//! Expressions as they are once Grafana has put in its variables, and what they ask for.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
};

use monitor::metrics::{Kind, Reference, reference};
use promql_parser::parser::{self, Expr, VectorSelector};

/// What a variable that stands for everything becomes.
pub(crate) const ANY: &str = ".+";

static REFERENCE: LazyLock<Vec<Reference>> = LazyLock::new(reference);

thread_local! {
    /// Parsing takes milliseconds, and each rule parses everything.
    static PARSED: RefCell<HashMap<String, Result<Expr, String>>> = RefCell::default();
}

/// Puts odd values in the place of Grafana's variables, so that one cannot be taken for a value somebody wrote.
pub(crate) fn parse(query: &str) -> Result<Expr, String> {
    let known = PARSED.with_borrow(|parsed| parsed.get(query).cloned());
    known.unwrap_or_else(|| {
        let result = parse_anew(query);
        PARSED.with_borrow_mut(|parsed| parsed.insert(query.to_owned(), result.clone()));
        result
    })
}

fn parse_anew(query: &str) -> Result<Expr, String> {
    let mut query =
        query.replace("$__rate_interval", "123s").replace("$__interval", "124s").replace("$__range", "125s");
    for variable in ["$job", "$instance", "$netns", "$interface"] {
        query = query.replace(variable, ANY);
    }
    parser::parse(&query).map_err(|error| format!("does not parse: {error}: {query}"))
}

/// A selector, the function whose range it gives, and the seconds of the range.
pub(crate) struct Selected {
    pub(crate) selector: VectorSelector,
    pub(crate) within: Option<&'static str>,
    pub(crate) range: Option<u64>,
}

pub(crate) fn selectors(expr: &Expr) -> Vec<Selected> {
    match expr {
        Expr::Aggregate(aggregate) => {
            let param = aggregate.param.iter().flat_map(|param| selectors(param));
            param.chain(selectors(&aggregate.expr)).collect()
        }
        Expr::Unary(unary) => selectors(&unary.expr),
        Expr::Binary(binary) => [&binary.lhs, &binary.rhs].into_iter().flat_map(|e| selectors(e)).collect(),
        Expr::Paren(paren) => selectors(&paren.expr),
        Expr::Subquery(subquery) => selectors(&subquery.expr),
        Expr::VectorSelector(selector) => {
            vec![Selected { selector: selector.clone(), within: None, range: None }]
        }
        Expr::MatrixSelector(matrix) => {
            let range = Some(matrix.range.as_secs());
            vec![Selected { selector: matrix.vs.clone(), within: None, range }]
        }
        Expr::Call(call) => {
            let name = call.func.name;
            let of_args = call.args.args.iter().flat_map(|arg| selectors(arg));
            of_args.map(|s| Selected { within: s.within.or(Some(name)), ..s }).collect()
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Vec::new(),
    }
}

/// The names a selector asks for; one without a name may list them in `__name__`.
pub(crate) fn names(selector: &VectorSelector) -> Vec<String> {
    match &selector.name {
        Some(name) => vec![name.clone()],
        None => {
            let of_name = selector.matchers.matchers.iter().filter(|matcher| matcher.name == "__name__");
            of_name.flat_map(|matcher| matcher.value.split('|').map(str::to_owned)).collect()
        }
    }
}

/// The names series have: a histogram's are its parts. `up` is Prometheus' own.
pub(crate) fn metric_names() -> BTreeSet<String> {
    let names = |kind: Kind, name: &str| match kind {
        Kind::Histogram(_) => ["_bucket", "_count", "_sum"].map(|part| format!("{name}{part}")).to_vec(),
        _ => vec![name.to_owned()],
    };
    let ours = REFERENCE.iter().flat_map(|r| names(r.metric.kind, r.metric.name));
    ours.chain(["up".to_owned()]).collect()
}

/// The labels a metric's series have beside job and instance.
pub(crate) fn labels(series: &str) -> BTreeSet<&'static str> {
    let of = |r: &Reference| {
        series == r.metric.name
            || matches!(r.metric.kind, Kind::Histogram(_)) && family(series) == Some(r.metric.name)
    };
    REFERENCE.iter().filter(|r| of(r)).flat_map(|r| r.metric.labels.iter().copied()).collect()
}

/// A series' family, where it is a part of a histogram.
pub(crate) fn family(series: &str) -> Option<&str> {
    ["_bucket", "_count", "_sum"].iter().find_map(|part| series.strip_suffix(part))
}

pub(crate) fn is_counter(series: &str) -> bool {
    let of = |kind: Kind, name: &str| match kind {
        Kind::Counter => series == name,
        Kind::Histogram(_) => family(series) == Some(name),
        Kind::Gauge => false,
    };
    REFERENCE.iter().any(|r| of(r.metric.kind, r.metric.name))
}
