//! The state of one target, without clock or IO: results of probes come in, the verdict goes out.

use super::Config;
use crate::snapshot::ProbeState;

/// Where a target stands, and how far it has come towards a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not judged yet. One of the first two counts is zero: they count results in a row.
    Starting {
        successes: u32,
        failures: u32,
        /// All results so far. One that keeps changing its mind is down in the end, so that it cannot hold
        /// up for ever those who wait for the first verdicts.
        results: u32,
    },
    /// Answers.
    Up { failures: u32 },
    /// Does not answer.
    Down { successes: u32 },
}

impl Phase {
    pub(super) const NEW: Self = Self::Starting {
        successes: 0,
        failures: 0,
        results: 0,
    };

    pub(super) fn after_probe(self, passed: bool, config: &Config) -> Self {
        match (self, passed) {
            (
                Self::Starting {
                    successes,
                    failures,
                    results,
                },
                _,
            ) => {
                let (successes, failures) = if passed {
                    (successes + 1, 0)
                } else {
                    (0, failures + 1)
                };
                let results = results + 1;
                if successes >= config.rise && passed {
                    Self::Up { failures: 0 }
                } else if failures >= config.fall && !passed {
                    Self::Down { successes: 0 }
                } else if results >= config.rise.saturating_add(config.fall) {
                    Self::Down { successes }
                } else {
                    Self::Starting {
                        successes,
                        failures,
                        results,
                    }
                }
            }
            (Self::Up { failures }, false) if failures + 1 < config.fall => Self::Up {
                failures: failures + 1,
            },
            (Self::Down { successes }, true) if successes + 1 < config.rise => Self::Down {
                successes: successes + 1,
            },
            (_, true) => Self::Up { failures: 0 },
            (_, false) => Self::Down { successes: 0 },
        }
    }

    /// Whether the next probe is wanted soon: a verdict is due, or about to change.
    pub(super) fn wavers(self) -> bool {
        match self {
            Self::Starting { .. } => true,
            Self::Up { failures } => failures > 0,
            Self::Down { successes } => successes > 0,
        }
    }

    pub(super) fn state(self) -> ProbeState {
        match self {
            Self::Starting { .. } => ProbeState::Starting,
            Self::Up { .. } => ProbeState::Up,
            Self::Down { .. } => ProbeState::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Phase, ProbeState};

    /// Feeds `+` (passed) and `-` (failed) to `phase`; the states by their first letter, lower case while
    /// the phase wavers.
    #[track_caller]
    fn check(mut phase: Phase, probes: &str, expect: &str) {
        let config = Config::default();
        let mut states = String::new();
        for probe in probes.chars() {
            phase = phase.after_probe(probe == '+', &config);
            let letter = match phase.state() {
                ProbeState::Starting => 'S',
                ProbeState::Up => 'U',
                ProbeState::Down => 'D',
                ProbeState::Off => 'O',
            };
            states.push(if phase.wavers() {
                letter.to_ascii_lowercase()
            } else {
                letter
            });
        }
        assert_eq!(states, expect, "{probes}");
    }

    #[test]
    fn a_new_target_is_up_after_two_successes_in_a_row() {
        check(Phase::NEW, "++", "sU");
        check(Phase::NEW, "+-++", "sssU");
    }

    #[test]
    fn a_new_target_is_down_after_three_failures_in_a_row() {
        check(Phase::NEW, "---", "ssD");
        check(Phase::NEW, "+---", "sssD");
    }

    #[test]
    fn a_new_target_that_cannot_make_up_its_mind_is_down_after_rise_and_fall_results() {
        check(Phase::NEW, "-+-+-", "ssssD");
        check(Phase::NEW, "+-+-+-", "ssssdD");
        check(Phase::NEW, "--+-++", "ssssdU");
    }

    #[test]
    fn a_target_falls_after_three_failures_in_a_row() {
        let up = Phase::Up { failures: 0 };
        check(up, "+--+---", "UuuUuuD");
    }

    #[test]
    fn a_target_rises_after_two_successes_in_a_row() {
        let down = Phase::Down { successes: 0 };
        check(down, "-+-++", "DdDdU");
    }

    #[test]
    fn thresholds_of_one_act_at_once() {
        let config = Config {
            rise: 1,
            fall: 1,
            ..Config::default()
        };
        let up = Phase::NEW.after_probe(true, &config);
        assert_eq!(up, Phase::Up { failures: 0 });
        assert_eq!(up.after_probe(false, &config), Phase::Down { successes: 0 });
    }
}
