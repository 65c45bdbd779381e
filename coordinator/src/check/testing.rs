//! What the tests of checks share.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use smartscale_proto::check::{Finding, Outcome};

use crate::ids::CoordinatorName;

pub(super) fn name() -> CoordinatorName {
    "coordinator-a".parse().unwrap()
}

pub(super) fn outcomes(findings: &[Finding]) -> Vec<Outcome> {
    findings.iter().map(|finding| finding.outcome).collect()
}

/// That a finding that is not passed says what to do.
pub(super) fn says_what_to_do(findings: &[Finding]) {
    for finding in findings {
        let is_bad = matches!(finding.outcome, Outcome::Failed | Outcome::Warning);
        assert_eq!(!finding.remedy.is_empty(), is_bad, "{finding:?}");
        assert!(
            !finding.tried.is_empty() && !finding.found.is_empty(),
            "{finding:?}"
        );
    }
}
