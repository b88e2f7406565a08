//! What becomes of frames on a cable that is not a good one.

use std::time::Duration;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deal {
    Carry,
    Lose,
    Twice,
    /// After the next one.
    Late,
}

/// How well a cable carries frames; by default it carries all of them, in their order and at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// How many of a thousand frames are lost.
    pub lost: u16,
    /// How many of a thousand come twice.
    pub twice: u16,
    /// How many of a thousand come after the next one.
    pub late: u16,
    /// How long each takes.
    pub takes: Duration,
}

impl Quality {
    /// What becomes of a frame that drew this number.
    pub(super) fn deal(&self, drawn: u64) -> Deal {
        let mut left = drawn % 1000;
        for (share, deal) in [
            (self.lost, Deal::Lose),
            (self.twice, Deal::Twice),
            (self.late, Deal::Late),
        ] {
            match left.checked_sub(share.into()) {
                Some(more) => left = more,
                None => return deal,
            }
        }
        Deal::Carry
    }
}

/// Marsaglia's xorshift, which is enough to have no pattern: always the same for as many frames.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_thousand_frames_as_many_meet_each_fate_as_the_quality_says() {
        let quality = Quality {
            lost: 10,
            twice: 20,
            late: 30,
            takes: Duration::ZERO,
        };
        let deals: Vec<_> = (0..1000).map(|drawn| quality.deal(drawn)).collect();
        let count = |deal| deals.iter().filter(|it| **it == deal).count();
        let each = [Deal::Lose, Deal::Twice, Deal::Late, Deal::Carry];
        assert_eq!(each.map(count), [10, 20, 30, 940]);
        assert_eq!(Quality::default().deal(0), Deal::Carry);
    }
}
