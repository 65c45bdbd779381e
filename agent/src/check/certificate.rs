//! The machine's certificate: whether it is this machine's, and how long it lasts.

use jiff::Timestamp;
use smartscale_proto::check::Finding;

use crate::{enrol::Enrolled, machine::Machine};

/// Judges what is stored.
pub(super) fn finding(enrolled: Option<&Enrolled>, machine: Option<&Machine>, now: Timestamp) -> Finding {
    const AREA: &str = "certificate";
    const TRIED: &str = "read the stored enrolment";
    let Some(enrolled) = enrolled else {
        return Finding::skipped(AREA, TRIED, "this machine is not enrolled yet");
    };
    let not_after = enrolled.not_after;
    if machine.is_some_and(|machine| machine.id != enrolled.machine.id) {
        let found = format!("it is {}'s, whose disk this was", enrolled.machine.id);
        let remedy = "take /var/lib/smartscale out of the image: the agent enrols anew";
        return Finding::warning(AREA, TRIED, found, remedy);
    }
    if not_after <= now {
        let found = format!("node {}, its certificate ended {not_after}", enrolled.node);
        let remedy = "start the agent: it comes back by its key, if the coordinator is reached";
        return Finding::failed(AREA, TRIED, found, remedy);
    }
    if enrolled.until_renewal(now).is_zero() {
        let found = format!(
            "node {}, its certificate ends {not_after} and is overdue for renewal",
            enrolled.node
        );
        let remedy =
            "see in the agent's log why a coordinator does not renew it (journalctl -u smartscale-agent)";
        return Finding::warning(AREA, TRIED, found, remedy);
    }
    let found = format!("node {}, until {not_after}", enrolled.node);
    Finding::passed(AREA, TRIED, found)
}
