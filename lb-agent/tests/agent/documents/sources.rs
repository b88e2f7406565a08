//! The texts that names of the documents are looked for in.

use std::{fs, path::Path, sync::OnceLock};

use lb_testkit::markdown::workspace;

/// Everything in Rust, with the lines of a text that goes on joined; xtask's alone; and files of other kinds.
pub(super) struct Sources {
    pub(super) all: String,
    /// The same with an ellipsis for each value in a text.
    pub(super) templates: String,
    pub(super) xtask: String,
    pub(super) files: String,
}

pub(super) fn sources() -> &'static Sources {
    static SOURCES: OnceLock<Sources> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let mut sources = Sources {
            all: String::new(),
            templates: String::new(),
            xtask: String::new(),
            files: String::new(),
        };
        for folder in fs::read_dir(workspace()).unwrap().map(Result::unwrap) {
            let name = folder.file_name().into_string().unwrap();
            if name.starts_with("lb-") || ["xtask", "hello", "compose", "deploy"].contains(&&*name)
            {
                read(&folder.path(), &mut sources);
            }
        }
        sources
    })
}

fn read(folder: &Path, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            read(&path, sources);
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if path.extension().is_none_or(|it| it != "rs") {
            sources.files.push_str(&text);
            continue;
        }
        let mut joined = String::new();
        for line in text.split_inclusive('\n') {
            let goes_on = joined.ends_with("\\\n");
            if goes_on {
                joined.truncate(joined.len() - 2);
            }
            joined.push_str(if goes_on { line.trim_start() } else { line });
        }
        // What stands within quotes in a message.
        let joined = joined.replace("\\\"", "\"");
        if path.starts_with(workspace().join("xtask")) {
            sources.xtask.push_str(&joined);
        }
        let mut pieces = joined.split('{');
        sources.templates.push_str(pieces.next().unwrap());
        for piece in pieces {
            let value = piece
                .split_once('}')
                .filter(|(value, _)| !value.contains('\n'));
            sources.templates.push('…');
            sources
                .templates
                .push_str(value.map_or(piece, |(_, rest)| rest));
        }
        sources.all.push_str(&joined);
    }
}
