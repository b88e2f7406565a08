//! Finds the cgroup v2 tree in the table of mounts. Pure.

use std::path::PathBuf;

/// Where the whole cgroup v2 tree is mounted, by `mountinfo` (see proc_pid_mountinfo(5)). Hosts that also mount
/// version 1 have it at `/sys/fs/cgroup/unified`.
pub(super) fn mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        // Optional fields end with a lone hyphen.
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = before.split(' ');
        let (root, mount_point) = (fields.nth(3)?, fields.next()?);
        // A mount of a part of the tree misses the processes outside of it. Inside a cgroup namespace the root
        // of the mount shows as `/..`-like paths; then there is no whole tree to be had either.
        (root == "/").then(|| PathBuf::from(unescaped(mount_point)))
    })
}

/// A field of `mountinfo`: blanks, tabs, line ends and backslashes are written as three octal digits.
pub(crate) fn unescaped(field: &str) -> String {
    let mut text = field.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n")] {
        text = text.replace(code, plain);
    }
    // Last: it may uncover what only looks like a code.
    text.replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::mount;

    #[track_caller]
    fn check(mountinfo: &str, expect: Option<&str>) {
        assert_eq!(mount(mountinfo).as_deref(), expect.map(Path::new));
    }

    #[test]
    fn the_tree_is_found_on_plain_and_on_hybrid_hosts() {
        check(
            "22 1 0:20 / /sys rw shared:7 - sysfs sysfs rw\n\
             35 22 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
            Some("/sys/fs/cgroup"),
        );
        check(
            "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
             31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            Some("/sys/fs/cgroup/unified"),
        );
    }

    #[test]
    fn a_mount_of_a_part_of_the_tree_is_passed_over() {
        check("35 22 0:30 /docker/x /mnt rw - cgroup2 cgroup2 rw\n", None);
    }

    #[test]
    fn odd_mount_points_and_odd_lines_are_read() {
        check(
            "35 22 0:30 / /my\\040cgroups rw - cgroup2 none rw\n",
            Some("/my cgroups"),
        );
        check("", None);
        check(" - cgroup2\n- \n35 - cgroup2 x\n", None);
    }
}
