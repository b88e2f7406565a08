//! The operator's pages for what the front answers by itself: files of the host, named in the configuration.
//!
//! The front cannot read files, so it is told what is in them. In place of one that cannot be used the front has its own line.

use std::{collections::BTreeMap, io, path::Path, path::PathBuf};

use lb_front::{Page, Pages};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Problem,
    discover::file::{Error, watch_files::watch_files},
};

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum For {
    /// A name that no service has.
    NoRoute,
    /// A service without a usable instance.
    NoBackend,
    /// A service under maintenance.
    Maintenance,
}

impl For {
    /// All of them, with their keys in the configuration.
    pub const ALL: [(Self, &str); 3] = [
        (Self::NoRoute, "no_route"),
        (Self::NoBackend, "no_backend"),
        (Self::Maintenance, "maintenance"),
    ];

    fn of(self, pages: &mut Pages) -> &mut Option<Page> {
        match self {
            Self::NoRoute => &mut pages.no_route,
            Self::NoBackend => &mut pages.no_backend,
            Self::Maintenance => &mut pages.maintenance,
        }
    }
}

/// Whether the file `path` is HTML, or plain text; `None` if its name says neither.
pub fn is_html(path: &Path) -> Option<bool> {
    match path.extension()?.to_str()? {
        "html" | "htm" => Some(true),
        "txt" => Some(false),
        _ => None,
    }
}

/// All pages, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Sheaf {
    pages: Pages,
    problems: BTreeMap<For, Problem>,
}

impl Sheaf {
    /// The pages that can be used.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// What is wrong with the others.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    /// The page for `what` is what the `file` says.
    pub fn read(&mut self, what: For, path: &Path, file: io::Result<Vec<u8>>) {
        let page = file
            .map_err(|error| format!("it cannot be read ({error})"))
            .and_then(|text| page(path, text));
        let page = match page {
            Ok(page) => {
                tracing::info!(path = %path.display(), "page read");
                self.problems.remove(&what);
                Some(page)
            }
            Err(why) => {
                let subject = format!("page {}", path.display());
                let message = format!("{why}; the front has its own line in its place");
                let problem = Problem::new(subject, message);
                if self.problems.get(&what) != Some(&problem) {
                    tracing::warn!(%problem, "page not used");
                }
                self.problems.insert(what, problem);
                None
            }
        };
        *what.of(&mut self.pages) = page;
    }
}

fn page(path: &Path, text: Vec<u8>) -> Result<Page, String> {
    if text.len() > Page::LIMIT {
        let limit = Page::LIMIT / 1024;
        return Err(format!("it is longer than {limit} KiB"));
    }
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let text = String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    let html = is_html(path).unwrap_or_default();
    Ok(Page { html, text })
}

/// Sends the pages once all `files` were looked at, and after every change of one, until `stop`.
///
/// # Errors
///
/// When the kernel refuses to watch any file. A missing or wrong file is no error: it is told beside the pages.
pub async fn run(
    files: BTreeMap<For, PathBuf>,
    out: watch::Sender<Option<Pages>>,
    problems: watch::Sender<Vec<Problem>>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut sheaf = Sheaf::default();
    watch_files(&files, &stop, |what, path, text, all| {
        sheaf.read(*what, path, text);
        if all {
            out.send_replace(Some(sheaf.pages.clone()));
            problems.send_replace(sheaf.problems().cloned().collect());
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, file: io::Result<&[u8]>) -> Sheaf {
        let mut sheaf = Sheaf::default();
        let file = file.map(<[u8]>::to_vec);
        sheaf.read(For::NoRoute, Path::new(path), file);
        sheaf
    }

    #[test]
    fn a_page_is_what_its_name_says() {
        for (path, html) in [("/a.html", true), ("/a.htm", true), ("/a.txt", false)] {
            let sheaf = read(path, Ok(b"<p>none"));
            let text = "<p>none".to_owned();
            assert_eq!(sheaf.pages.no_route, Some(Page { html, text }));
            assert_eq!(sheaf.problems().count(), 0);
        }
    }

    #[test]
    fn one_that_cannot_be_used_is_a_problem_until_it_can() {
        let long = vec![b'x'; Page::LIMIT + 1];
        for (file, why) in [
            (Err(io::ErrorKind::NotFound.into()), "cannot be read"),
            (Ok(&long[..]), "longer than 64 KiB"),
            (Ok(&b""[..]), "empty"),
            (Ok(&b"\xff"[..]), "not UTF-8"),
        ] {
            let mut sheaf = read("/a.html", file);
            assert_eq!(sheaf.pages, Pages::default());
            let problem = sheaf.problems().next().unwrap().to_string();
            assert!(problem.contains(why), "{problem}");
            assert!(problem.contains("/a.html"), "{problem}");
            let path = Path::new("/a.html");
            sheaf.read(For::NoRoute, path, Ok(long[1..].to_vec()));
            assert_eq!(sheaf.problems().count(), 0);
            assert!(sheaf.pages.no_route.is_some());
        }
    }
}
