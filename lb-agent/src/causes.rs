//! An error and its causes, as one line for logs, reports and people.

/// The error and its causes on one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| {
        let cause = cause.to_string();
        // A message with its remedy at the end has told its cause before that.
        if line.contains(&cause) {
            return line;
        }
        format!("{line}: {cause}")
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{discover::consul::TlsError, reconcile};

    #[test]
    fn a_chain_tells_each_cause_once() {
        let gone = || io::Error::other("gone");
        let events = reconcile::Error::Events(gone());
        assert_eq!(
            error_chain(&events),
            "cannot wait for the kernel's events: gone"
        );
        let file = TlsError::Read {
            path: "/ca.pem".into(),
            source: gone(),
        };
        assert_eq!(
            error_chain(&file),
            "/ca.pem cannot be read: gone; correct the path or the permissions"
        );
    }
}
