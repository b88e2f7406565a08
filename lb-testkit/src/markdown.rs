//! Documents in Markdown, as far as tests read them: fenced blocks, links, headings, and words of code.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// A document of this workspace.
#[derive(Debug)]
pub struct Document {
    /// From the folder of the workspace on, as `docs/vip.md`.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// Those for people: what lies beside README.md, and all of docs/.
///
/// # Errors
/// When one cannot be read.
pub fn documents() -> io::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for folder in ["", "docs"].map(|folder| workspace().join(folder)) {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "md") {
                let text = fs::read_to_string(&path)?;
                let path = path.strip_prefix(workspace()).unwrap_or(&path).to_owned();
                documents.push(Document { path, text });
            }
        }
    }
    documents.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(documents)
}

/// The folder of this workspace.
pub fn workspace() -> &'static Path {
    // Tests are built and run in the workspace that they test.
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'t> {
    /// Of its opening fence, counted from 1.
    pub line: usize,
    /// What stands behind the fence.
    pub language: &'t str,
    /// What is in it, without the indentation that its fence has.
    pub text: String,
    /// The HTML comments right before it, which readers do not see.
    pub comments: Vec<&'t str>,
}

impl Block<'_> {
    /// What a comment says behind `word:`.
    pub fn said(&self, word: &str) -> Option<&str> {
        let mut said = self.comments.iter().filter_map(|comment| {
            let (name, rest) = comment.split_once(':')?;
            (name.trim() == word).then_some(rest.trim())
        });
        said.next()
    }
}

/// All fenced blocks.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut comments = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let content = line.trim_start();
        if let Some(language) = content.strip_prefix("```") {
            let indent = line.len() - content.len();
            let inner = lines.by_ref().map(|(_, line)| line);
            let inner = inner.take_while(|line| line.trim() != "```");
            let inner: Vec<_> = inner.map(|line| line.get(indent..).unwrap_or("")).collect();
            blocks.push(Block {
                line: at + 1,
                language,
                text: inner.join("\n"),
                comments: std::mem::take(&mut comments),
            });
        } else if let Some(comment) = content.strip_prefix("<!--") {
            comments.push(comment.trim_end().trim_end_matches("-->").trim());
        } else if !content.is_empty() {
            comments.clear();
        }
    }
    blocks
}

/// The lines outside of fenced blocks, each with its number.
pub fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Where links and images lead, each with its line.
pub fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            links.extend(rest.split_once(')').map(|(target, _)| (number, target)));
        }
    }
    links
}

/// What stands in back quotes, each with its line.
pub fn code(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line;
        while let Some(start) = rest.find('`') {
            let ticks = rest[start..]
                .bytes()
                .take_while(|byte| *byte == b'`')
                .count();
            let (fence, inner) = rest[start..].split_at(ticks);
            let Some(end) = inner.find(fence) else { break };
            words.push((number, inner[..end].trim()));
            rest = &inner[end + ticks..];
        }
    }
    words
}

/// The anchors of the headings, as GitHub makes them.
pub fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len() && heading.starts_with(' ')).then(|| heading.trim())
    });
    let anchor = |heading: &str| {
        let kept = heading.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then_some(letter),
        });
        kept.collect::<String>().to_lowercase()
    };
    headings.map(anchor).collect()
}

/// Whether a document has `made` between the marks that name `source`, the file that it is made from. `cargo xtask
/// docs` sets `LB_WRITE_DOCS`, and then it has.
///
/// # Errors
/// When the document or its marks are not there, or it cannot be written.
pub fn has_what_is_made(document: &str, source: &str, made: &str) -> io::Result<bool> {
    if std::env::var_os("LB_WRITE_DOCS").is_some() {
        write_what_is_made(document, source, made)?;
        return Ok(true);
    }
    let text = fs::read_to_string(workspace().join(document))?;
    let now = what_is_made(&text, source)?;
    Ok(text[now] == format!("\n{made}\n"))
}

/// Makes a document have `made` there.
///
/// # Errors
/// As [`has_what_is_made`].
pub fn write_what_is_made(document: &str, source: &str, made: &str) -> io::Result<()> {
    let path = workspace().join(document);
    let text = fs::read_to_string(&path)?;
    fs::write(path, with_what_is_made(&text, source, made)?)
}

/// The text of a document with `made` there. Pure.
///
/// # Errors
/// When its marks are not there.
pub fn with_what_is_made(text: &str, source: &str, made: &str) -> io::Result<String> {
    let mut text = text.to_owned();
    let now = what_is_made(&text, source)?;
    text.replace_range(now, &format!("\n{made}\n"));
    Ok(text)
}

/// The mark before what is made from `source`.
pub fn begin(source: &str) -> String {
    format!("<!-- made from {source} by `cargo xtask docs`: -->\n")
}

/// Where in a document what is made from `source` stands.
fn what_is_made(text: &str, source: &str) -> io::Result<Range<usize>> {
    let begin = begin(source);
    let range = text.find(&begin).and_then(|at| {
        let start = at + begin.len();
        Some(start..start + text[start..].find(END)?)
    });
    range.ok_or_else(|| io::Error::other(format!("the document has no marks for {source}")))
}

const END: &str = "<!-- end of what is made -->\n";

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# The `a_b`: what, it does\n\nSee [x](y.md#z) and `one` and ``two ` three``.\n\n\
                        <!-- not run: it takes long -->\n\n```sh\nls `pwd` [x](no)\n```\n\n1. In a list:\n\n   \
                        ```toml\n   a = 1\n\n     b\n   ```\n";

    #[test]
    fn blocks_have_their_line_their_language_and_the_comment_before() {
        let blocks = blocks(TEXT);
        let [first, second] = &*blocks else {
            panic!("{blocks:?}")
        };
        assert_eq!((first.line, first.language), (7, "sh"));
        assert_eq!(first.text, "ls `pwd` [x](no)");
        assert_eq!(first.said("not run"), Some("it takes long"));
        assert_eq!((second.line, second.language), (13, "toml"));
        assert_eq!(second.text, "a = 1\n\n  b");
        assert_eq!(second.comments, [""; 0]);
    }

    #[test]
    fn links_and_code_are_those_of_the_prose() {
        assert_eq!(links(TEXT), [(3, "y.md#z")]);
        let words = [(1, "a_b"), (3, "one"), (3, "two ` three")];
        assert_eq!(code(TEXT), words);
        assert_eq!(anchors(TEXT), ["the-a_b-what-it-does".to_owned()].into());
    }

    #[test]
    fn the_documents_of_this_workspace_are_found() {
        let documents = documents().unwrap();
        for path in ["README.md", "docs/vip.md"].map(Path::new) {
            assert!(documents.iter().any(|it| it.path == path), "{path:?}");
        }
    }
}
