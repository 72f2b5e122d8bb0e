//! Numbers in few characters. Pure.

use std::time::Duration;

/// What traffic is shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Bits,
}

impl Unit {
    fn scale(self) -> (f64, char) {
        match self {
            Self::Bytes => (1.0, 'B'),
            Self::Bits => (8.0, 'b'),
        }
    }
}

/// Three digits and a decimal prefix: `0`, `0.3`, `12`, `1.25k`, `12.5M`.
pub(super) fn count(value: f64) -> String {
    let (number, prefix) = prefixed(value);
    format!("{number}{prefix}")
}

/// Bytes or bits a second: `12.5 MB`.
pub(super) fn rate(bytes: f64, unit: Unit) -> String {
    let (factor, letter) = unit.scale();
    let (number, prefix) = prefixed(bytes * factor);
    format!("{number} {prefix}{letter}")
}

/// Bytes: of a sum they are bytes, whatever rates are shown in.
pub(super) fn volume(bytes: f64, _: Unit) -> String {
    rate(bytes, Unit::Bytes)
}

/// A short time: `0.25 ms`, `12 ms`, `1.5 s`.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds => format!("{seconds:.0} s"),
    }
}

/// A long time: `42 s`, `3 min`, `5 h`, `12 d`.
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..100 => format!("{seconds} s"),
        seconds @ 100..6000 => format!("{} min", seconds / 60),
        seconds @ 6000..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

fn prefixed(value: f64) -> (String, &'static str) {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let (mut value, mut prefix) = (value, 0);
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let number = match value {
        value if value == 0.0 || value >= 99.95 => format!("{value:.0}"),
        value if value < 0.095 => format!("{value:.2}"),
        value if prefix > 0 && value < 9.995 => format!("{value:.2}"),
        value if prefix > 0 || value < 9.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => number,
    };
    (number, PREFIXES[prefix])
}

/// The next of 1, 2, 5, 10, 20, …: where a graph ends.
pub(super) fn ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value * 0.999_999).unwrap_or(10.0 * power)
}

/// At most so many characters; of a long name both ends are told.
pub(super) fn middle(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let keep = width.saturating_sub(1);
    let (head, tail) = (keep.div_ceil(2), keep / 2);
    let end: String = text.chars().skip(length - tail).collect();
    format!("{}…{end}", text.chars().take(head).collect::<String>())
}

/// At most so many characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_never_a_fourth() {
        let shown =
            [0.0, 0.04, 0.25, 2.5, 9.97, 12.4, 99.96, 999.4, 999.6, 1250.0, 12_500.0, 999_600.0, 1e12];
        let expected =
            ["0", "0.04", "0.2", "2.5", "10", "12", "100", "999", "1k", "1.25k", "12.5k", "1M", "1T"];
        assert_eq!(shown.map(count), expected);
        assert_eq!([rate(1500.0, Unit::Bytes), rate(1500.0, Unit::Bits)], ["1.5 kB", "12 kb"]);
        assert_eq!(volume(1500.0, Unit::Bits), "1.5 kB");
    }

    #[test]
    fn times_read_as_one_writes_them() {
        assert_eq!(
            [0.000_25, 0.0015, 0.012, 1.5, 12.0].map(seconds),
            ["250 µs", "1.5 ms", "12 ms", "1.5 s", "12 s"]
        );
        let ages = [99, 100, 6000, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["99 s", "1 min", "1 h", "2 d"]);
    }

    #[test]
    fn a_graph_ends_at_a_round_number() {
        let ends = [0.0, f64::NAN, 1.0, 1.1, 2.0, 4.9, 5.1, 10.0, 123_456.0].map(ceiling);
        assert_eq!(ends, [1.0, 1.0, 1.0, 2.0, 2.0, 5.0, 10.0, 10.0, 200_000.0]);
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!([middle("short", 5), middle("kube-system-coredns", 9)], ["short", "kube…edns"]);
        assert_eq!([cut("a sentence", 10), cut("a sentence", 3)], ["a sentence", "a…"]);
    }
}
