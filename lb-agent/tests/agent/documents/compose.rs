//! What the documents add to the files of compose/ is understood by Compose itself.

use std::{fs, process::Command};

use lb_testkit::markdown::{blocks, documents, workspace};

use crate::kit::alone;

#[test]
fn every_addition_to_the_compose_files_is_understood() {
    let _alone = alone();
    let compose = std::env::var_os("LB_COMPOSE").expect("`cargo xtask test` sets LB_COMPOSE");
    let folder = tempfile::tempdir().unwrap();
    let base = workspace().join("compose/consul.yml");
    let mut read = 0;
    for document in documents().unwrap() {
        for block in blocks(&document.text) {
            if block.language != "yaml" {
                continue;
            }
            let addition = folder.path().join("this-file.yml");
            fs::write(&addition, &block.text).unwrap();
            let mut command = Command::new(&compose);
            command
                .arg("-f")
                .arg(&base)
                .arg("-f")
                .arg(&addition)
                .arg("config");
            let output = command.output().unwrap();
            let place = format!("{}:{}", document.path.display(), block.line);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{place}: {said}");
            // Each service that it names is there with what it says, beside those of the file.
            let merged = String::from_utf8(output.stdout).unwrap();
            let services = block.text.lines().filter_map(|line| {
                let name = line.strip_prefix("  ")?.strip_suffix(':')?;
                (!name.starts_with(' ')).then_some(name)
            });
            for service in services.chain(["consul", "agent"]) {
                assert!(
                    merged.contains(&format!("\n  {service}:\n")),
                    "{place}: {merged}"
                );
            }
            read += 1;
        }
    }
    assert!(read > 0);
}
