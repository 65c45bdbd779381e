//! The audit: who did what, and whether the chains are whole. They are checked here, with the records in hand and the
//! certificate authority of the credentials, so that no coordinator is asked whether it was honest.

use std::time::Duration;

use smartscale_proto::{
    audit::{
        Entry, Head,
        verify::{Checker, Report},
    },
    time::{duration_from_wire, from_wire},
    v1::{self, ListAuditResponse, export_audit_response::Part},
};

use super::{client::Client, failure::Failure, print, render::Answer, say, show::read, table::table};
use crate::cli::{AuditCommand, Noted};

pub(super) async fn execute(client: &mut Client, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List {
            limit,
            coordinator,
            format,
        } => {
            let request = v1::ListAuditRequest { coordinator, limit };
            print(format, &client.ask(request, Client::audit).await?)
        }
        AuditCommand::Verify { noted } => {
            let reports = verify(client, &noted).await?;
            let mut wrong = 0;
            for report in &reports {
                say(&told(report))?;
                wrong += report.findings.len();
            }
            for noted in &noted {
                if !reports
                    .iter()
                    .any(|report| report.coordinator == noted.coordinator)
                {
                    say(&format!("{}  there is no such chain any more", noted.coordinator))?;
                    wrong += 1;
                }
            }
            match (wrong, reports.is_empty()) {
                (0, false) => Ok(()),
                (0, true) => Err(Failure::Failed("there is no chain at all".to_owned())),
                (wrong, _) => Err(Failure::Failed(format!(
                    "the audit is not what was written: {wrong} findings"
                ))),
            }
        }
    }
}

/// A chain that is under way.
struct Chain {
    checker: Checker,
    sealed: bool,
}

async fn verify(client: &mut Client, noted: &[Noted]) -> Result<Vec<Report>, Failure> {
    let mut parts = client
        .ask(v1::ExportAuditRequest {}, Client::export_audit)
        .await?;
    let mut reports = Vec::new();
    let mut chain: Option<Chain> = None;
    while let Some(response) = parts.message().await.map_err(|status| Failure::of(&status))? {
        let nonsense = |what: &dyn std::fmt::Display| {
            Failure::Failed(format!("the coordinator's answer makes no sense: {what}"))
        };
        let now = response.now.as_ref().map(from_wire);
        let kept = response.kept.as_ref().map(duration_from_wire);
        let begin = |name: &str, head: Option<Head>| -> Result<Chain, Failure> {
            let (Some(Ok(now)), Some(Ok(kept))) = (&now, &kept) else {
                return Err(nonsense(&"its time is missing"));
            };
            let sealed = head
                .as_ref()
                .is_some_and(|head| head.is_sealed_by(client.anchors()));
            let kept: Duration = *kept;
            let noted = noted.iter().find(|noted| noted.coordinator == name);
            let noted = noted.map(|noted| (noted.sequence, noted.hash));
            Ok(Chain {
                checker: Checker::new(name, *now, kept, head, noted),
                sealed,
            })
        };
        let next = match response.part {
            Some(Part::Head(head)) => {
                let head = Head::try_from(head).map_err(|error| nonsense(&error))?;
                Some(begin(&head.coordinator.clone(), Some(head))?)
            }
            Some(Part::Headless(name)) => Some(begin(&name, None)?),
            Some(Part::Place(place)) => {
                let chain = chain
                    .as_mut()
                    .ok_or_else(|| nonsense(&"a record without a chain"))?;
                match place.entry.map(Entry::try_from) {
                    Some(Ok(entry)) => chain.checker.entry(place.position, &entry),
                    Some(Err(_)) => chain.checker.unreadable(&format!("record {}", place.position)),
                    None => chain.checker.unreadable(&place.key),
                }
                None
            }
            None => None,
        };
        if let Some(next) = next
            && let Some(ended) = chain.replace(next)
        {
            reports.push(ended.checker.finish(ended.sealed));
        }
    }
    if let Some(ended) = chain {
        reports.push(ended.checker.finish(ended.sealed));
    }
    Ok(reports)
}

fn told(report: &Report) -> String {
    let Report {
        coordinator,
        first,
        last,
        hash,
        findings,
    } = report;
    let mut lines = vec![if findings.is_empty() {
        format!("{coordinator}  records {first} to {last}: whole, sealed\n  note {coordinator}:{last}:{hash}")
    } else {
        format!("{coordinator}  records {first} to {last}: not what was written")
    }];
    lines.extend(findings.iter().map(|finding| format!("  {finding}")));
    lines.join("\n")
}

impl Answer for ListAuditResponse {
    const NAME: &'static str = "ListAuditResponse";

    fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .entries
            .iter()
            .map(|entry| {
                let who = entry.who.rsplit('/').next().unwrap_or_default();
                let who = if entry.role.is_empty() {
                    who.to_owned()
                } else {
                    format!("{who} ({})", entry.role)
                };
                let call = entry.call.rsplit('/').next().unwrap_or_default();
                vec![
                    read(&entry.time).map_or_else(|| "-".to_owned(), |time| format!("{time:.0}")),
                    who,
                    call.to_owned(),
                    entry.outcome.clone(),
                    entry.arguments.clone(),
                ]
            })
            .collect();
        table(&["TIME", "WHO", "CALL", "OUTCOME", "ARGUMENTS"], &rows)
    }
}
