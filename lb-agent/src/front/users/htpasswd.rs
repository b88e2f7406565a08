//! A file of users as `htpasswd` writes it: a line for each, with the name, a colon and a hash of the password.

use std::collections::{BTreeMap, btree_map::Entry};

use lb_front::users::Users;

use crate::options::cut;

/// The users of a file, and what is wrong with other lines. Nothing of a password or a hash is ever told.
pub(crate) fn read(text: &[u8]) -> (Users, Vec<String>) {
    let mut users = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = line.trim_ascii_end();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let Some((name, hash)) = user(line) else {
            wrong.push(format!(
                "line {number} is not the name of a user, a colon and a hash; write it with `htpasswd -B`"
            ));
            continue;
        };
        let shown = cut(name);
        match (judge(hash), users.entry(name.to_owned())) {
            (Ok(()), Entry::Vacant(free)) => drop(free.insert(hash.to_owned())),
            (Ok(()), Entry::Occupied(_)) => wrong.push(format!(
                "line {number} is the second one of `{shown}` and does not count; remove one of them"
            )),
            (Err(why), _) => wrong.push(format!(
                "`{shown}` of line {number} cannot log in: the password {why}; hash it anew with `htpasswd -B`"
            )),
        }
    }
    (Users::new(users), wrong)
}

fn user(line: &[u8]) -> Option<(&str, &str)> {
    let (name, hash) = std::str::from_utf8(line).ok()?.split_once(':')?;
    let legal = !name.is_empty() && !name.contains(char::is_control);
    legal.then_some((name, hash))
}

/// Only bcrypt keeps a password for a while when the file gets into wrong hands.
fn judge(hash: &str) -> Result<(), String> {
    let Some(cost) = bcrypt_cost(hash) else {
        let known = FORMS.iter().find(|(start, _)| hash.starts_with(start));
        let form = known.map_or("not hashed with bcrypt", |(_, form)| *form);
        return Err(format!("is {form}"));
    };
    match COSTS.contains(&cost) {
        true => Ok(()),
        false => Err(format!(
            "is hashed with cost {cost}, and only costs from {} to {} are taken",
            COSTS.start(),
            COSTS.end()
        )),
    }
}

/// The cost of what is a hash by bcrypt.
fn bcrypt_cost(hash: &str) -> Option<u8> {
    let rest = ["$2y$", "$2b$", "$2a$"]
        .iter()
        .find_map(|start| hash.strip_prefix(start))?;
    let (cost, rest) = rest.split_once('$')?;
    let digits = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
    let whole = digits && rest.len() == 53 && rest.bytes().all(legal);
    cost.parse().ok().filter(|_| whole)
}

/// What else `htpasswd` and its like write, by how it begins.
const FORMS: [(&str, &str); 6] = [
    ("$apr1$", "hashed with MD5 (apr1), which is soon guessed"),
    ("$1$", "hashed with MD5, which is soon guessed"),
    ("{SHA}", "hashed with SHA-1, which is soon guessed"),
    ("{SSHA}", "hashed with SHA-1, which is soon guessed"),
    ("$5$", "hashed with SHA-256, which is not taken"),
    ("$6$", "hashed with SHA-512, which is not taken"),
];

/// The least that bcrypt knows, and what takes a second.
const COSTS: std::ops::RangeInclusive<u8> = 4..=14;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

    #[track_caller]
    fn check(text: &str, names: usize, wrong: &[&str]) {
        let (users, problems) = read(text.as_bytes());
        assert_eq!(users.count(), names, "{text}");
        assert_eq!(problems.len(), wrong.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(wrong) {
            assert!(problem.contains(part), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn a_line_is_a_user_with_a_hash_by_bcrypt() {
        check(
            &format!("ann:{HASH}\n# a comment\n\r\nbob:{HASH}\r\n"),
            2,
            &[],
        );
        check(&format!("j\u{fc}rg e:{}", HASH.replace("2y", "2b")), 1, &[]);
        check("", 0, &[]);
        check(
            "ann:$apr1$secret$x\nbob:{SHA}secret=\ncat:secret\ndan:$6$secret$x\neve:secretsecret1",
            0,
            &[
                "`ann` of line 1 cannot log in: the password is hashed with MD5 (apr1)",
                "SHA-1",
                "not hashed with bcrypt; hash it anew with `htpasswd -B`",
                "SHA-512",
                "line 5",
            ],
        );
        check("secret\n:secret\n", 0, &["line 1 is not", "line 2 is not"]);
        check(
            &format!("ann:{HASH}\nann:{HASH}"),
            1,
            &["line 2 is the second one of `ann`"],
        );
        for (from, to) in [("$05", "$03"), ("$05", "$15"), ("$05", "$99")] {
            check(
                &format!("ann:{}", HASH.replace(from, to)),
                0,
                &["costs from 4 to 14"],
            );
        }
        for hash in [
            &HASH[..59],
            &format!("{HASH}x"),
            &HASH.replace("2y", "2x"),
            &HASH.replace("$05", "$5"),
        ] {
            check(&format!("ann:{hash}"), 0, &["not hashed with bcrypt"]);
        }
    }

    #[test]
    fn a_line_that_is_no_text_costs_no_other() {
        let mut text = b"\xff\xfe:x\nann:".to_vec();
        text.extend_from_slice(HASH.as_bytes());
        let (users, wrong) = read(&text);
        assert_eq!((users.count(), wrong.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn no_file_panics_and_no_line_is_lost(lines in proptest::collection::vec("[ -~]{0,80}", 0..8)) {
            let (users, wrong) = read(lines.join("\n").as_bytes());
            let said = lines.iter().map(|line| line.trim_ascii_end());
            let said = said.filter(|line| !line.is_empty() && !line.starts_with('#'));
            prop_assert_eq!(users.count() + wrong.len(), said.count());
        }
    }
}
