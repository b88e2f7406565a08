//! How a process ended, and what it said.

use serde_json::Value;

/// How a start ended that had to fail.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl Attempt {
    /// It ended with `code` and one message, which has all these words in it.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, words: &[&str]) {
        let Self { code: found, said } = self;
        assert_eq!(*found, Some(code), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        let starts = ["lb-agent: ", "error: "];
        let mut lines = said.split_inclusive('\n');
        let heads = |line: &&str| starts.iter().any(|start| line.starts_with(start));
        assert_eq!(
            lines.clone().filter(heads).count(),
            1,
            "not one message:\n{said}"
        );
        while lines.clone().next().is_some_and(|line| !heads(&line)) {
            lines.next();
        }
        let message: String = lines.collect();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in:\n{message}");
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Asked {
    pub(super) fn of(output: &std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// What it wrote, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
