//! Adds up what test runners say in their closing lines.

/// How many tests ended how.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Adds `line` if it is a closing line of `cargo test` or nextest.
    ///
    /// ```text
    /// test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s
    ///      Summary [   0.713s] 41 tests run: 40 passed (1 slow), 1 failed, 2 skipped
    /// ```
    pub(crate) fn read(&mut self, line: &str) {
        let line = without_colours(line);
        // Not trimmed: nextest shows a failed test's own output, with the closing line of its harness, indented.
        let counts = if let Some(rest) = line.strip_prefix("test result: ") {
            rest
        } else if line.trim_start().starts_with("Summary [") && line.contains(" run: ") {
            line.split_once(" run: ").map_or("", |(_, rest)| rest)
        } else {
            return;
        };
        for part in counts.split([';', ',', '.', '(']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" | "timed" | "exec" => self.failed += number,
                "ignored" | "skipped" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// `line` less its terminal escapes.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for escaped in chars.by_ref() {
                if escaped.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn tally(lines: &[&str]) -> (u64, u64, u64) {
        let mut tally = Tally::default();
        for line in lines {
            tally.read(line);
        }
        (tally.passed, tally.failed, tally.skipped)
    }

    #[test]
    fn closing_lines_of_both_runners_add_up() {
        assert_eq!(
            tally(&[
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s\n",
                "     Summary [   0.713s] 41 tests run: 38 passed (2 slow), 1 failed, 2 timed out, 2 skipped\n",
            ]),
            (50, 3, 3)
        );
    }

    #[test]
    fn colours_do_not_hide_a_closing_line() {
        assert_eq!(
            tally(&[
                "\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] \u{1b}[1m5\u{1b}[0m tests run: \u{1b}[1m5\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped"
            ]),
            (5, 0, 0)
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(
            tally(&[
                "running 3 tests",
                "    test result: FAILED. 0 passed; 1 failed; 0 ignored",
                "test a ... ok",
                "3 passed, 4 failed"
            ]),
            (0, 0, 0)
        );
    }
}
