//! Whether a command printed what a document shows. Numbers and times may differ, and an ellipsis stands for anything.

/// Compares them word by word, for the width of a column follows its numbers.
pub(super) fn is_as_shown(shown: &str, printed: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim_end);
        let lines = lines.flat_map(|line| line.split_whitespace().chain(["\n"]));
        lines.map(str::to_owned).collect()
    };
    fits(&words(shown), &words(printed))
}

fn fits(shown: &[String], printed: &[String]) -> bool {
    let Some((first, rest)) = shown.split_first() else {
        return printed.is_empty();
    };
    if first == ELLIPSIS {
        // On a line of its own it stands for whole lines.
        return (0..=printed.len()).any(|count| fits(rest, &printed[count..]))
            || rest.first().is_some_and(|it| it == "\n") && fits(&rest[1..], printed);
    }
    let Some((word, others)) = printed.split_first() else {
        return false;
    };
    same(first, word) && fits(rest, others)
}

fn same(shown: &str, printed: &str) -> bool {
    if let Some((before, after)) = shown.split_once(ELLIPSIS) {
        return printed.starts_with(before) && printed.ends_with(after);
    }
    shown == printed || is_number(shown) && is_number(printed)
}

/// Also one with a unit, and the time of a day. The digits of an address are none.
fn is_number(word: &str) -> bool {
    let word = word.trim_matches(|it| matches!(it, ',' | ';' | '(' | ')'));
    let time = word.matches(':').count() == 2;
    let word = match time {
        true => word.replace(':', ""),
        false => word.to_owned(),
    };
    let units = ["ms", "µs", "s", "%"];
    let bare = units.iter().find_map(|unit| word.strip_suffix(unit));
    bare.unwrap_or(&word).parse::<f64>().is_ok()
}

const ELLIPSIS: &str = "…";

#[test]
fn numbers_and_what_is_left_out_may_differ_and_nothing_else() {
    let shown = "NAME  FLOWS\nweb   12\n";
    assert!(is_as_shown(shown, "NAME FLOWS\nweb 7"));
    assert!(!is_as_shown(shown, "NAME FLOWS\nshop 7"));
    assert!(!is_as_shown(shown, "NAME FLOWS\nweb 7\nshop 7"));
    assert!(is_as_shown("…\nweb 1\n…", "NAME FLOWS\nweb 7\nshop 7"));
    assert!(is_as_shown(
        "22:14:09.371 took 3 ms",
        "01:02:03.004 took 12 ms"
    ));
    assert!(is_as_shown("cookie 4a…", "cookie 4abc"));
    assert!(!is_as_shown("at 10.0.0.1", "at 10.0.0.2"));
    assert!(!is_as_shown("2/2", "1/2"));
}
