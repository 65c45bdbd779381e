//! `smartscale check`: each coordinator tries what it depends on, and says what to do.

use smartscale_proto::{
    check::{Finding, Outcome, Report},
    v1,
};

use super::{Client, Failure, print, render::Answer};
use crate::cli::Format;

/// Asks every coordinator, not only the one that leads: the others take over in the state that they are in.
pub(super) async fn execute(client: &Client, format: Format) -> Result<(), Failure> {
    let answers = client.ask_each(v1::CheckRequest {}, Client::check).await;
    let reports = answers.into_iter().flat_map(|(endpoint, answer)| match answer {
        Ok(answer) => answer.reports,
        Err(error) => vec![unanswered(&endpoint, error).into()],
    });
    let response = v1::CheckResponse {
        reports: reports.collect(),
    };
    print(format, &response)?;
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

impl Answer for v1::CheckResponse {
    const NAME: &'static str = "CheckResponse";

    fn table(&self) -> String {
        let reports: Vec<String> = reports_of(self).map(|report| report.to_string()).collect();
        reports.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_does_not_answer_is_a_failure_of_its_own_beside_the_others() {
        let sound = Report {
            program: "coordinator a".to_owned(),
            version: "0.1.0".to_owned(),
            findings: vec![Finding::passed("clock", "compared", "they agree")],
        };
        let response = v1::CheckResponse {
            reports: vec![
                sound.into(),
                unanswered("10.0.0.11:7443", "connection refused".to_owned()).into(),
            ],
        };
        let table = response.table();
        assert!(table.contains("coordinator a 0.1.0\n  passed   clock"), "{table}");
        assert!(
            table.contains("asked 10.0.0.11:7443 for a check: connection refused"),
            "{table}"
        );
        let failed: Vec<_> = reports_of(&response).map(|report| report.has_failed()).collect();
        assert_eq!(failed, [false, true]);
    }
}
