//! `cargo xtask dist`: what is given to others, in `target/dist`: the program, its image, a Debian package, what they are made
//! of, and the sums of all.
//!
//! The same source and the same tools give the same bytes, whoever uses them and wherever; `--check` makes all of it twice.

mod deb;
mod judge;
mod licences;
mod sbom;
mod source;
mod stamp;
mod twice;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
pub(crate) use stamp::{REVISION, Stamp};

use crate::{
    image::{self, Build},
    setup,
    shell::{output, say},
    workspace,
};

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make it once more, of a copy of the source in another folder, and compare: each byte must be the same
    #[arg(long)]
    check: bool,
}

/// Makes everything, and twice if that is asked for.
///
/// # Errors
/// When something cannot be made, or is not as it should be.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::programs()?;
    setup::dist_programs()?;
    let stamp = Stamp::of_source()?;
    if stamp.revision.ends_with("-dirty") {
        say(
            "the source has changes that are not committed: nobody else can make what is made of it",
        );
    }
    let folder = workspace().join("target/dist");
    let files = make(Build::Small, &folder, &stamp)?;
    judge::sums(&folder)?;
    judge::places(&folder, &files)?;
    if args.check {
        twice::again(&folder, &files, &stamp)?;
    }
    for file in &files {
        let bytes = fs::metadata(folder.join(file))?.len();
        println!("{:>11}  {}", bytes, folder.join(file).display());
    }
    Ok(())
}

/// What `ci` does: the same of programs that are sooner built, judged by those who read it.
///
/// # Errors
/// When something cannot be made, or is not as it should be.
pub(crate) fn short() -> Result<()> {
    say("what is given to others");
    let stamp = Stamp::of_source()?;
    let folder = workspace().join("target/dist-debug");
    let files = make(Build::Soon, &folder, &stamp)?;
    judge::sums(&folder)?;
    judge::places(&folder, &files)?;
    judge::sbom(&folder.join(name("cdx.json")))?;
    judge::image(&folder.join(name("image.tar")), &folder.join(program()))?;
    judge::package(&folder.join(package()))
}

/// Makes everything in `folder`, and answers the names of the files.
fn make(how: Build, folder: &Path, stamp: &Stamp) -> Result<Vec<String>> {
    // With the name of a commit the agent is built anew for each.
    let (revision, effort) = match how {
        Build::Small => (Some(stamp.revision.as_str()), 6),
        Build::Soon => (None, 0),
    };
    let programs = image::static_programs(how, &[], revision)?;
    pack(&programs, effort, folder, stamp)
}

/// The same of programs that are built: those in the folder `programs`.
fn pack(programs: &Path, effort: u8, folder: &Path, stamp: &Stamp) -> Result<Vec<String>> {
    source::empty(folder)?;
    let work = workspace().join("target/dist-work");
    source::empty(&work)?;
    let copy = |from: &Path, name: &str| -> Result<PathBuf> {
        let to = folder.join(name);
        fs::copy(from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(to)
    };

    let agent = copy(&programs.join("lb-agent"), &program())?;
    let image = image::agent(programs, Some(stamp))?;
    copy(&image.file, &name("image.tar"))?;
    let list = sbom::make(&work, stamp)?;
    let sbom = folder.join(name("cdx.json"));
    fs::write(&sbom, format!("{list:#}\n"))?;
    let licences = folder.join(name("licences.txt"));
    fs::write(&licences, licences::text(&list)?)?;
    say("the Debian package");
    let content = deb::Content {
        program: &agent,
        sbom: &sbom,
        licences: &licences,
        effort,
    };
    deb::pack(&work.join("deb"), &folder.join(package()), &content, stamp)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;

    let mut files = vec![
        program(),
        name("image.tar"),
        name("cdx.json"),
        name("licences.txt"),
        package(),
    ];
    files.sort();
    let sums = output(
        Command::new("sha256sum")
            .current_dir(folder)
            .arg("--")
            .args(&files),
    )?;
    fs::write(folder.join(SUMS), sums)?;
    files.push(SUMS.to_owned());
    Ok(files)
}

/// The sums of all other files.
const SUMS: &str = "SHA256SUMS";

/// The file of the program.
fn program() -> String {
    format!(
        "lb-agent-{}-linux-{}",
        env!("CARGO_PKG_VERSION"),
        image::architecture()
    )
}

/// The file of this kind that is made of it.
fn name(ending: &str) -> String {
    format!("{}.{ending}", program())
}

/// The Debian package, by Debian's custom for names.
fn package() -> String {
    format!(
        "lb-agent_{}_{}.deb",
        env!("CARGO_PKG_VERSION"),
        image::architecture()
    )
}
