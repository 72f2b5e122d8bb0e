//! One source file as the rules read it: its text, and its code alone (no comments, no contents of strings), in
//! which every byte stands where it stood, so that lines keep their numbers. A lexer, deliberately not a parser.

use std::path::{Path, PathBuf};

/// One source file.
pub(super) struct Source {
    /// Its path from the root of the workspace.
    pub(super) path: PathBuf,
    /// As written.
    pub(super) text: String,
    /// The same with comments and contents of strings and characters blanked.
    pub(super) code: String,
    /// Byte ranges of items under `#[cfg(test)]`.
    tests: Vec<std::ops::Range<usize>>,
}

impl Source {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let code = blank(text);
        let tests = test_items(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, tests }
    }

    /// The line a byte stands on, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Whether the byte stands in a test, or the whole file is one.
    pub(super) fn is_test(&self, at: usize) -> bool {
        self.path.starts_with("tests")
            || self.path.components().any(|part| part.as_os_str() == "tests")
            || self.path.file_name().is_some_and(|name| name == "tests.rs")
            || self.tests.iter().any(|range| range.contains(&at))
    }

    /// Where a word stands in the code, whole words only.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_word = |char: char| char.is_alphanumeric() || char == '_';
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            !self.code[..*at].ends_with(is_word) && !self.code[at + word.len()..].starts_with(is_word)
        })
    }
}

/// The text with a space in place of every byte of a comment, and of what stands inside a string or character.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + block_comment(rest)
        } else if let Some((open, hashes)) = raw_string(bytes, at) {
            let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
            let inside = &rest[open..];
            let length = inside.windows(close.len()).position(|end| end == close).unwrap_or(inside.len());
            at + open + length + close.len()
        } else if rest[0] == b'"' {
            at + quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            at + quoted(rest, b'\'')
        } else {
            at += 1;
            continue;
        };
        let end = end.min(bytes.len());
        let quotes = !rest.starts_with(b"/");
        for (offset, byte) in code[at..end].iter_mut().enumerate() {
            let is_edge = quotes && (offset == 0 || offset + 1 == end - at);
            if *byte != b'\n' && !is_edge {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole comments and strings were blanked, and what remains is as it was.
    String::from_utf8_lossy(&code).into_owned()
}

/// Length of a block comment; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length up to and with the opening quote, and the number of `#`, when a raw string starts here.
fn raw_string(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = bytes[at..].strip_prefix(b"r")?;
    let before = at.checked_sub(1).map(|before| bytes[before]);
    if before.is_some_and(|byte| byte.is_ascii_alphanumeric() && byte != b'b' && byte != b'c' || byte == b'_')
    {
        return None;
    }
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some((hashes + 2, hashes))
}

/// Length of a string or character with its quotes.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Whether a quote starts a character, not a lifetime.
fn is_character(rest: &[u8]) -> bool {
    if rest.get(1) == Some(&b'\\') {
        return true;
    }
    // One character of up to four bytes, then the closing quote.
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]);
    text.chars().nth(1) == Some('\'')
}

/// Ranges of the items that `#[cfg(test)]` stands before.
fn test_items(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    for (start, attribute) in code.match_indices("#[cfg(test)]") {
        let mut depth = 0_usize;
        for (offset, char) in code[start + attribute.len()..].char_indices() {
            match char {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (char == '}' || char == ';') {
                ranges.push(start..start + attribute.len() + offset + 1);
                break;
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_code_stays_in_its_place() {
        let text = "let a = \"setns\"; // setns\n/* a /* b */ setns */ setns('\"', 'x', r#\"unshare \"#)\n";
        let source = Source::new(Path::new("a.rs"), text);
        assert_eq!(source.code.len(), text.len());
        let found: Vec<_> = source.words("setns").collect();
        assert_eq!(found.len(), 1);
        assert_eq!((&text[found[0]..found[0] + 8], source.line(found[0])), ("setns('\"", 2));
        assert_eq!(source.words("unshare").count(), 0);
    }

    #[test]
    fn a_lifetime_is_no_character() {
        let source = Source::new(Path::new("a.rs"), "fn f<'a>(x: &'a str) { setns(x, '\\'', 'ü', b'x') }");
        assert_eq!(source.words("setns").count(), 1);
        assert!(source.code.contains("<'a>(x: &'a str)"), "{}", source.code);
    }

    #[test]
    fn words_are_whole() {
        let source = Source::new(Path::new("a.rs"), "setns_all(); my_setns(); setns();");
        assert_eq!(source.words("setns").collect::<Vec<_>>(), [25]);
    }

    #[test]
    fn items_under_cfg_test_are_tests_and_others_are_not() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}";
        let source = Source::new(Path::new("monitor/src/a.rs"), text);
        let is_test = |name: &str| source.is_test(text.find(name).expect("it is there"));
        assert!(is_test("fn b") && is_test("use d"));
        assert!(!is_test("fn a") && !is_test("fn c") && !is_test("fn e"));
        assert!(Source::new(Path::new("tests/tests/host.rs"), "").is_test(0));
    }
}
