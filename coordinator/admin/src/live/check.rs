//! `smartscale check`: each coordinator tries what it depends on, each agent what its machine does, and they say what to do.

use smartscale_proto::{
    check::{Finding, Outcome, Report},
    permission::Refusal,
    v1,
};

use super::{Client, Failure, print, render::Answer, say};
use crate::{cli::CheckArgs, plan::Output};

/// How the reports of agents begin.
const AGENT: &str = "agent ";

/// Asks every coordinator, not only the one that leads: the others take over in the state that they are in. The agents are asked
/// by the one that leads.
pub(super) async fn execute(client: &mut Client, args: CheckArgs) -> Result<(), Failure> {
    let CheckArgs {
        node,
        no_agents,
        all,
        format,
    } = args;
    let mut reports = Vec::new();
    if node.is_none() {
        for (endpoint, answer) in client.ask_each(v1::CheckRequest {}, Client::check).await {
            match answer {
                Ok(answer) => reports.extend(answer.reports),
                Err(error) => reports.push(unanswered(&endpoint, error).into()),
            }
        }
    }
    if !no_agents {
        let is_one = node.is_some();
        let request = v1::CheckAgentsRequest {
            node: node.unwrap_or_default(),
        };
        match client.ask(request, Client::check_agents).await {
            Ok(answer) => reports.extend(answer.reports),
            Err(failure) if is_one => return Err(failure),
            Err(failure) => reports.push(unasked(&failure).into()),
        }
    }
    let response = v1::CheckResponse { reports };
    match format.output {
        Output::Table => say(table(&response, all).trim_end())?,
        Output::Json | Output::Yaml => print(format, &response)?,
    }
    let failed: usize = reports_of(&response)
        .map(|report| report.count(Outcome::Failed))
        .sum();
    if failed > 0 {
        return Err(Failure::Failed(match failed {
            1 => "one check failed".to_owned(),
            _ => format!("{failed} checks failed"),
        }));
    }
    Ok(())
}

fn reports_of(response: &v1::CheckResponse) -> impl Iterator<Item = Report> {
    response.reports.iter().cloned().map(Report::from)
}

fn unanswered(endpoint: &str, error: String) -> Report {
    Report {
        program: format!("coordinator at {endpoint}"),
        version: String::new(),
        findings: vec![Finding::failed(
            "coordinator",
            format!("asked {endpoint} for a check"),
            error,
            "look whether it runs (systemctl status smartscale-coordinator) and is reached from here; on its machine, \
             `smartscale-coordinator check` says what it lacks",
        )],
    }
}

/// Why the agents were not asked.
fn unasked(failure: &Failure) -> Report {
    let tried = "had the coordinator that leads ask the agents";
    // Every role may ask: what refuses it does not know the call.
    let finding = if failure.message().contains(&Refusal::PermissionDenied.to_string()) {
        Finding::skipped("agents", tried, "it is of an older version and asks none")
    } else {
        let why: Vec<&str> = failure.message().lines().map(str::trim).collect();
        let remedy =
            "look at the coordinators first; on a worker, `smartscale-agent check` says what it lacks";
        Finding::failed("agents", tried, why.join(" "), remedy)
    };
    Report {
        program: "agents".to_owned(),
        version: String::new(),
        findings: vec![finding],
    }
}

/// Every line of the coordinators. Of an agent those that did not pass, if there is anything to look at; of the others their number.
fn table(response: &v1::CheckResponse, all: bool) -> String {
    let mut shown = Vec::new();
    let mut well = 0;
    for report in reports_of(response) {
        if all || !report.program.starts_with(AGENT) {
            shown.push(report.to_string());
        } else if is_well(&report) {
            well += 1;
        } else {
            shown.push(report.brief().to_string());
        }
    }
    match well {
        0 => {}
        1 => shown.push("one agent found nothing to look at; --all shows its lines\n".to_owned()),
        _ => shown.push(format!(
            "{well} agents found nothing to look at; --all shows their lines\n"
        )),
    }
    shown.join("\n")
}

/// Something was tried, and nothing is to be looked at.
fn is_well(report: &Report) -> bool {
    let none = |outcome| report.count(outcome) == 0;
    none(Outcome::Failed) && none(Outcome::Warning) && !none(Outcome::Passed)
}

impl Answer for v1::CheckResponse {
    const NAME: &'static str = "CheckResponse";

    fn table(&self) -> String {
        table(self, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(program: &str, findings: Vec<Finding>) -> v1::CheckReport {
        let report = Report {
            program: program.to_owned(),
            version: "0.1.0".to_owned(),
            findings,
        };
        report.into()
    }

    #[test]
    fn a_coordinator_that_does_not_answer_is_a_failure_of_its_own_beside_the_others() {
        let sound = vec![Finding::passed("clock", "compared", "they agree")];
        let response = v1::CheckResponse {
            reports: vec![
                report("coordinator a", sound),
                unanswered("10.0.0.11:7443", "connection refused".to_owned()).into(),
            ],
        };
        let table = table(&response, false);
        assert!(table.contains("coordinator a 0.1.0\n  passed   clock"), "{table}");
        assert!(
            table.contains("asked 10.0.0.11:7443 for a check: connection refused"),
            "{table}"
        );
        let failed: Vec<_> = reports_of(&response).map(|report| report.has_failed()).collect();
        assert_eq!(failed, [false, true]);
    }

    fn fleet() -> v1::CheckResponse {
        let kernel = || Finding::passed("kernel", "read /proc/pressure/cpu", "the kernel tells pressure");
        let launched = "it was launched at 2026-01-02T03:04:05Z and has not enrolled yet";
        v1::CheckResponse {
            reports: vec![
                report(
                    "coordinator a",
                    vec![Finding::passed("store", "read the lease", "it is ours")],
                ),
                report(
                    "agent i-1",
                    vec![
                        kernel(),
                        Finding::skipped(
                            "secrets",
                            "read the secrets of a join",
                            "the coordinator gives them",
                        ),
                        Finding::failed(
                            "coordinator",
                            "connected to 10.0.0.11:7443",
                            "timed out",
                            "open the port",
                        ),
                    ],
                ),
                report("agent i-2", vec![kernel()]),
                report("agent i-3", vec![kernel()]),
                report(
                    "agent i-4",
                    vec![Finding::skipped("agent", "asked the agent for a check", launched)],
                ),
            ],
        }
    }

    #[test]
    fn of_agents_only_what_is_to_be_looked_at_is_shown() {
        assert_eq!(
            table(&fleet(), false),
            "\
coordinator a 0.1.0
  passed   store  read the lease: it is ours
  1 passed

agent i-1 0.1.0
  skipped  secrets      read the secrets of a join: the coordinator gives them
  failed   coordinator  connected to 10.0.0.11:7443: timed out
                        -> open the port
  1 passed, 1 failed, 1 skipped

agent i-4 0.1.0
  skipped  agent  asked the agent for a check: it was launched at 2026-01-02T03:04:05Z and has not enrolled yet
  1 skipped

2 agents found nothing to look at; --all shows their lines
"
        );
    }

    #[test]
    fn all_lines_are_shown_where_they_are_wanted() {
        let whole = table(&fleet(), true);
        assert_eq!(whole.matches("the kernel tells pressure").count(), 3, "{whole}");
        assert!(!whole.contains("--all"));
    }

    #[test]
    fn a_coordinator_that_does_not_know_the_call_is_no_failure() {
        let refused = tonic::Status::permission_denied(Refusal::PermissionDenied.to_string());
        assert_eq!(unasked(&Failure::of(&refused)).count(Outcome::Skipped), 1);
        let leaderless = tonic::Status::failed_precondition("no coordinator leads at this moment");
        assert!(unasked(&Failure::of(&leaderless)).has_failed());
    }
}
