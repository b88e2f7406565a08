//! What the front's fuzz targets do with bytes, and the replay of everything they are kept for.
//!
//! This exists for the tests and for `cargo xtask fuzz` only: the front has none of it. A new target is a function
//! here, a line in [`TARGETS`], three lines in `fuzz/targets/` and seeds in `fuzz/corpus/`.

mod announced;
pub(crate) mod framing;
mod routing;

pub use announced::front_proxy_header;
pub use framing::front_guard;
pub use routing::front_route;

/// A function of bytes that must neither panic nor break what it asserts.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("front_guard", front_guard),
    ("front_proxy_header", front_proxy_header),
    ("front_route", front_route),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Seeds and crashes that were found are tests for ever.
    #[test]
    fn every_kept_input_of_every_target_is_harmless() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        for (name, target) in TARGETS {
            let mut replayed = 0;
            for kind in ["corpus", "crashes"] {
                let Ok(folder) = fs::read_dir(fuzz.join(kind).join(name)) else {
                    assert_eq!(kind, "crashes", "{name} has no seeds in fuzz/corpus");
                    continue;
                };
                for input in folder {
                    let path = input.unwrap().path();
                    let data = fs::read(&path).unwrap();
                    let ended = std::panic::catch_unwind(|| target(&data));
                    assert!(ended.is_ok(), "{name} fails with {}", path.display());
                    replayed += 1;
                }
            }
            assert!(replayed > 1, "{name} has no seeds in fuzz/corpus");
        }
    }

    #[test]
    fn every_target_can_be_run() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        for (name, _) in TARGETS {
            let program = fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
            assert!(program.contains(&format!("lb_front::fuzz::{name}(")));
        }
    }
}
