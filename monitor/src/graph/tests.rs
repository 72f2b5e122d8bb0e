//! Of the model; the writers are tested from outside, on whole graphs.

use super::*;

#[test]
fn nothing_that_moves_a_cursor_or_turns_text_is_left_in_a_name() {
    assert_eq!(plain("eth0.5-ä东"), "eth0.5-ä东");
    assert_eq!(
        plain("a\u{1b}[2J\u{202e}b\u{0}\u{ffff}\u{200b}"),
        "a\\u{1b}[2J\\u{202e}b\\u{0}\\u{ffff}\\u{200b}"
    );
}
