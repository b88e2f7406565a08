//! A download through a virtual IP, slow enough to be in the middle of things.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use lb_testkit::Process;

use super::curl::Place;

/// A download from `host` to `file` that takes longer than any step, unless told to hurry.
pub(super) fn start(place: Place<'_>, host: &str, file: &Path) -> Result<Process> {
    let url = format!("http://{host}/download?bytes={BYTES}&rate={RATE}");
    let process = place
        .curl()
        .args(["--max-time", "300", "--no-buffer", "--output"])
        .arg(file)
        .arg(url)
        .log(file.parent().unwrap_or(file));
    Ok(process.start()?)
}

/// The one instance that sent the whole of the download.
pub(super) fn sender(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).context("cannot read the download")?;
    ensure!(
        text.len() as u64 == BYTES,
        "{} bytes arrived, not {BYTES}",
        text.len()
    );
    // Its end may lie within a line.
    let (lines, rest) = text.rsplit_once('\n').context("no line has arrived")?;
    let senders: BTreeSet<_> = lines.lines().collect();
    let mut senders = senders.into_iter();
    match (senders.next(), senders.next()) {
        (Some(one), None) if one.starts_with(rest) => Ok(one.to_owned()),
        other => bail!("the download is from several senders: {other:?}"),
    }
}

/// How much has arrived.
pub(super) fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

/// Its length.
pub(super) const BYTES: u64 = 64 << 20;

/// The whole would take four minutes; told to hurry, it takes a second.
const RATE: u64 = 256 << 10;
