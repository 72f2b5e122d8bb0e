//! Whether a text is JSON, and on which line it stops being so. Nothing of it is kept: a parser would be a
//! dependency, and the values are looked at where they are used.

/// # Errors
/// The line of the first mistake, and what it is.
pub(super) fn check(text: &str) -> Result<(), (usize, String)> {
    let mut reader = Reader { rest: text.trim_start(), depth: 0 };
    reader
        .value()
        .and_then(
            |()| if reader.rest.is_empty() { Ok(()) } else { Err("more text after the value".to_owned()) },
        )
        .map_err(|what| {
            let read = &text[..text.len() - reader.rest.len()];
            (read.matches('\n').count() + 1, format!("is not JSON, {what}"))
        })
}

struct Reader<'a> {
    rest: &'a str,
    depth: u32,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > 200 {
            return Err("nested too deeply".to_owned());
        }
        match self.rest.chars().next() {
            Some('{') => self.list('{', '}', |reader| {
                reader.string()?;
                reader.expect(':')?;
                reader.value()
            }),
            Some('[') => self.list('[', ']', Self::value),
            Some('"') => self.string(),
            Some(_) => self.word(),
            None => Err("it ends where a value should be".to_owned()),
        }?;
        self.depth -= 1;
        Ok(())
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.expect(open)?;
        if self.rest.starts_with(close) {
            return self.expect(close);
        }
        loop {
            item(self)?;
            if !self.rest.starts_with(',') {
                return self.expect(close);
            }
            self.expect(',')?;
        }
    }

    fn string(&mut self) -> Result<(), String> {
        let inside = self.rest.strip_prefix('"').ok_or_else(|| "a string should stand here".to_owned())?;
        let mut chars = inside.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.rest = inside[at + 1..].trim_start();
                    return Ok(());
                }
                '\\' => match chars.next() {
                    Some((_, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {}
                    Some((_, 'u'))
                        if (0..4).all(|_| chars.next().is_some_and(|(_, c)| c.is_ascii_hexdigit())) => {}
                    _ => return Err("a bad escape in a string".to_owned()),
                },
                control if control < ' ' => return Err("a control character in a string".to_owned()),
                _ => {}
            }
        }
        Err("a string without end".to_owned())
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<(), String> {
        let end = self
            .rest
            .find(|char: char| !(char.is_ascii_alphanumeric() || "+-.".contains(char)))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let number = word.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && word.ends_with(|last: char| last.is_ascii_digit())
            && word.parse::<f64>().is_ok();
        if !number && !["true", "false", "null"].contains(&word) {
            return Err("a value should stand here".to_owned());
        }
        self.rest = rest.trim_start();
        Ok(())
    }

    fn expect(&mut self, char: char) -> Result<(), String> {
        self.rest =
            self.rest.strip_prefix(char).ok_or_else(|| format!("{char:?} should stand here"))?.trim_start();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_passes() {
        for text in
            ["{}", " [1, -2.5e3, true, null, \"a\\n\\u00e9\"]\n", "{\"a\": {\"b\": []}, \"c\": \"ü\"}"]
        {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_named_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("{\n\"a\": 1,\n}", 3),
            ("[1, 2", 1),
            ("{\"a\" 1}", 1),
            ("[\n'a'\n]", 2),
            ("\"a\\x\"", 1),
            ("[tru]", 1),
            ("[1] 2", 1),
            ("[inf]", 1),
        ] {
            assert_eq!(check(text).map_err(|(at, _)| at), Err(line), "{text}");
        }
        check(&"[".repeat(100_000)).expect_err("too deep, and no overflow of the stack");
    }
}
