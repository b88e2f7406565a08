//! The pins of other map versions: what the version before left is taken over and then thrown away.
//!
//! An agent of the version before is in charge as long as all maps that are read of it are pinned where it pinned them. While that
//! is so, the agent copies them into this version's, which nobody else writes, and replaces the programs; a start that was
//! interrupted does all of it again. Once the last program is replaced, the former `COUNTERS` move to this version's folder, which
//! ends that at once, and the other pins go.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lb_common::{MAP_VERSION, map};

use super::{Error, layout};
use crate::installed::Room;

/// What the version before counted, beside this version's own `COUNTERS`: those figures go on.
const FORMER_COUNTERS: &str = "FORMER_COUNTERS";

/// What the version before left.
pub(super) struct Previous {
    /// The folder of its pins.
    pub(super) folder: PathBuf,
    /// The size of its maps, if they are still to be taken over.
    pub(super) room: Option<Room>,
}

/// Looks for pins of other versions in `root`.
///
/// # Errors
/// When there are some of a version that cannot be taken over.
pub(super) fn look(root: &Path) -> Result<Option<Previous>, Error> {
    for entry in fs::read_dir(root).map_err(Error::pin("list", root))? {
        let name = entry.map_err(Error::pin("list", root))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('v'));
        let Some(version) = number.and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        if version != MAP_VERSION && version != MAP_VERSION - 1 {
            return Err(Error::Version {
                path: root.join(name),
                version,
            });
        }
    }
    let folder = root.join(format!("v{}", MAP_VERSION - 1));
    let is_there = |path: &Path| fs::exists(path).map_err(Error::pin("look for", path));
    if !is_there(&folder)? {
        return Ok(None);
    }
    let mut room = None;
    if is_there(&folder.join(map::SERVICES))? {
        let mut sizes = Vec::new();
        for layout in layout::previous() {
            let path = folder.join(layout.name);
            match layout.pinned(&path)? {
                Some(capacity) => sizes.push((layout.name, capacity)),
                // It ended before all its maps were there, so it never served.
                None => return Ok(Some(Previous { folder, room: None })),
            }
        }
        let size = |name| {
            sizes
                .iter()
                .find(|(map, _)| *map == name)
                .map_or(0, |it| it.1)
        };
        room = Some(Room {
            services: size(map::SERVICES),
            backends: size(map::BACKENDS),
        });
    }
    Ok(Some(Previous { folder, room }))
}

/// Where what the version before counted is pinned, if it is.
pub(super) fn former_counters(
    versioned: &Path,
    previous: Option<&Previous>,
) -> Result<Option<PathBuf>, Error> {
    let path = match previous {
        Some(Previous {
            folder,
            room: Some(_),
        }) => folder.join(map::COUNTERS),
        _ => versioned.join(FORMER_COUNTERS),
    };
    let there = fs::exists(&path).map_err(Error::pin("look for", &path))?;
    Ok(there.then_some(path))
}

/// Throws away what the version before left, but for its counters, which are read on from `to`. What is gone already
/// is no fault: an earlier start may have been interrupted here.
pub(super) fn retire(folder: &Path, to: &Path) -> Result<(), Error> {
    let counters = folder.join(map::COUNTERS);
    done(fs::rename(&counters, to.join(FORMER_COUNTERS)))
        .map_err(Error::pin("rename", &counters))?;
    for entry in fs::read_dir(folder).map_err(Error::pin("list", folder))? {
        let path = entry.map_err(Error::pin("list", folder))?.path();
        done(fs::remove_file(&path)).map_err(Error::pin("remove", &path))?;
    }
    done(fs::remove_dir(folder)).map_err(Error::pin("remove", folder))
}

fn done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
