//! Who may use a service that asks for a password.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Names of users, and the bcrypt hash of each one's password as `htpasswd -B` writes it. Nothing prints them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users(Vec<(String, String)>);

impl Users {
    /// These, of which the agent has seen that they are what they should be.
    pub fn new(users: BTreeMap<String, String>) -> Self {
        // In the order of their names.
        Self(users.into_iter().collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The hash of the user called `name`.
    pub(super) fn hash_of(&self, name: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(user, _)| (**user).cmp(name));
        Some(&self.0[place.ok()?].1)
    }

    /// The hash of some user, always the same one for the same number. `None` where there is nobody.
    pub(super) fn some_hash(&self, number: u64) -> Option<&str> {
        let place = number.checked_rem(self.0.len() as u64)?;
        let place = usize::try_from(place).ok()?;
        self.0.get(place).map(|(_, hash)| hash.as_str())
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} hidden)", self.0.len())
    }
}
