//! Waiting for a condition, never for a time.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

/// The condition did not come true in time.
#[derive(Debug)]
pub struct Late<E> {
    /// How long it was waited for.
    pub limit: Duration,
    /// Why it was not true the last time.
    pub last: E,
}

impl<E: fmt::Display> fmt::Display for Late<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not within {:?}: {:#}", self.limit, self.last)
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Late<E> {}

/// Asks `probe` until it answers with a value, at least once and at most for about `limit`.
///
/// # Errors
/// What the last `probe` said, when the time is over.
pub fn eventually<T, E>(
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> Result<T, Late<E>> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => return Err(Late { limit, last }),
            Err(_) => thread::sleep(BETWEEN_PROBES),
        }
    }
}

/// Short against what is waited for, long against what a probe costs.
const BETWEEN_PROBES: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_is_true_at_once_is_not_waited_for() {
        assert_eq!(
            eventually(Duration::ZERO, || Ok::<_, String>(7)).unwrap(),
            7
        );
    }

    #[test]
    fn the_last_reason_is_told_when_the_time_is_over() {
        let mut tries = 0;
        let late = eventually(Duration::from_millis(25), || {
            tries += 1;
            Err::<(), _>(format!("try {tries}"))
        })
        .unwrap_err();
        assert!(tries >= 2);
        assert_eq!(late.to_string(), format!("not within 25ms: try {tries}"));
    }
}
