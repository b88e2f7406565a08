//! What was typed wrong: one message that names the thing and the remedy, and nothing was touched.

use std::fs;

use crate::kit::World;

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once_with_their_lines() {
    let mut world = World::new();
    world.configure(
        "bpffs = 7\n\
         shoe_size = 44\n\
         [vip]\npool = \"198.18.0.0/33\"\n\
         [sources.file]\npath = \"services.toml\"\ncolour = \"red\"\n",
    );
    let attempt = world.attempt(&[]);
    let config = world.config().display().to_string();
    let line = |number: usize| format!("{config}:{number}: ");
    attempt.expect(
        2,
        &[&line(1), "bpffs", &line(2), "shoe_size", &line(7), "colour"],
    );
    world.assert_untouched();
    world.finish();
}

#[test]
fn all_wrong_values_of_a_configuration_are_told_at_once_with_their_lines() {
    let mut world = World::new();
    world.configure(
        "log_format = \"xml\"\n\
         [vip]\npool = \"198.18.0.0/33\"\n\
         [sources.file]\npath = \"/services.toml\"\n\
         [front]\nlisten = [\"80:0.0.0.0\"]\n\
         [health]\ninterval = \"soon\"\nrise = -1\n",
    );
    let attempt = world.attempt(&[]);
    let config = world.config().display().to_string();
    let line = |number: usize| format!("{config}:{number}: ");
    attempt.expect(
        2,
        &[
            &line(1),
            "`xml`",
            "json",
            &line(3),
            "198.18.0.0/33",
            &line(7),
            "80:0.0.0.0",
            &line(9),
            "soon",
            &line(10),
            "-1",
        ],
    );
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_configuration_that_is_no_toml_is_told_with_its_line() {
    let mut world = World::new();
    world.configure("state_dir = \"/x\"\n[sources.file\n");
    let attempt = world.attempt(&[]);
    attempt.expect(2, &[&format!("{}:2: ", world.config().display())]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let mut world = World::new();
    fs::remove_file(world.config()).unwrap();
    let attempt = world.attempt(&[]);
    attempt.expect(2, &[&world.config().display().to_string()]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_wrong_flag_and_a_wrong_value_of_a_flag_are_named() {
    let mut world = World::new();
    world
        .attempt(&["--pol", "x"])
        .expect(2, &["--pol", "--help"]);
    for (flag, wrong, remedy) in [
        ("--pool", "198.18.0.0", "198.18.0.0/16"),
        ("--pool", "fd00::/64", "IPv4"),
        ("--pool", "198.18.0.0/29", "/28"),
        ("--pool", "198.18.7.1/16", "198.18.0.0/16"),
        ("--front", "80", ":80"),
        ("--admin", "here", "127.0.0.1:"),
        ("--dns", "53", ":53"),
        ("--domain", "exa mple", "domain"),
        ("--consul", "ftp://x", "8500"),
        ("--log-format", "xml", "json"),
    ] {
        let attempt = world.attempt(&[flag, wrong]);
        attempt.expect(2, &[flag, wrong, remedy]);
    }
    world.assert_untouched();
    world.finish();
}

#[test]
fn an_agent_without_any_source_tells_how_to_name_one() {
    let mut world = World::new();
    let usual = world.usual();
    let path = format!("path = \"{}\"\n", world.path("services.toml").display());
    world.configure(&usual.replace(&format!("[sources.file]\n{path}"), ""));
    let attempt = world.attempt(&[]);
    attempt.expect(2, &["source", "--services", "--consul"]);
    world.assert_untouched();
    world.finish();
}

#[test]
fn a_wrong_variable_is_told_and_a_flag_wins_over_it() {
    let mut world = World::new();
    let agent = env!("CARGO_BIN_EXE_lb-agent");
    let by_variable = ["LB_POOL=seven", agent];
    let attempt = world.attempt_by("env", &by_variable, &[]);
    attempt.expect(2, &["seven", "198.18.0.0/16"]);
    let attempt = world.attempt_by("env", &by_variable, &["--pool", "eight"]);
    attempt.expect(2, &["eight"]);
    assert!(!attempt.said.contains("seven"), "{}", attempt.said);
    world.assert_untouched();
    world.finish();
}
