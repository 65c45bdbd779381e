//! The one place that says which identity may call what.
//!
//! A method that is not in the table is refused for everybody; a test walks over the compiled contract and
//! fails for a method that nobody has decided about.

use crate::identity::{Party, Role};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Anybody, also without a certificate: enrolment.
    Anybody,
    /// An agent, for the node that its certificate names.
    Agent,
    /// A person with at least this role.
    Role(Role),
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No client certificate, and the method needs one.
    #[error("this call needs a client certificate")]
    Unauthenticated,
    /// The caller's identity may not do this.
    #[error("this identity may not call this method")]
    PermissionDenied,
}

const TABLE: &[(&str, Requirement)] = &[
    ("/smartscale.v1.Enrolment/Challenge", Requirement::Anybody),
    ("/smartscale.v1.Enrolment/Enrol", Requirement::Anybody),
    ("/smartscale.v1.Agent/Session", Requirement::Agent),
    ("/smartscale.v1.Agent/Renew", Requirement::Agent),
    ("/smartscale.v1.Admin/Status", Requirement::Role(Role::Viewer)),
    ("/smartscale.v1.Admin/ListNodes", Requirement::Role(Role::Viewer)),
    ("/smartscale.v1.Admin/ListPods", Requirement::Role(Role::Viewer)),
    (
        "/smartscale.v1.Admin/ListDecisions",
        Requirement::Role(Role::Viewer),
    ),
    ("/smartscale.v1.Admin/Explain", Requirement::Role(Role::Viewer)),
    (
        "/smartscale.v1.Admin/ListOperations",
        Requirement::Role(Role::Viewer),
    ),
    (
        "/smartscale.v1.Admin/ListBlockers",
        Requirement::Role(Role::Viewer),
    ),
    ("/smartscale.v1.Admin/ListDemand", Requirement::Role(Role::Viewer)),
    ("/smartscale.v1.Admin/GetCost", Requirement::Role(Role::Viewer)),
    ("/smartscale.v1.Admin/Snapshot", Requirement::Role(Role::Viewer)),
    ("/smartscale.v1.Admin/Watch", Requirement::Role(Role::Viewer)),
    ("/smartscale.v1.Admin/Drain", Requirement::Role(Role::Operator)),
    ("/smartscale.v1.Admin/Recycle", Requirement::Role(Role::Operator)),
    ("/smartscale.v1.Admin/Cordon", Requirement::Role(Role::Operator)),
    ("/smartscale.v1.Admin/Uncordon", Requirement::Role(Role::Operator)),
    ("/smartscale.v1.Admin/Pause", Requirement::Role(Role::Operator)),
    ("/smartscale.v1.Admin/Resume", Requirement::Role(Role::Operator)),
    ("/smartscale.v1.Admin/Scale", Requirement::Role(Role::Operator)),
    (
        "/smartscale.v1.Identities/IssueIdentity",
        Requirement::Role(Role::Admin),
    ),
    (
        "/smartscale.v1.Identities/ListIdentities",
        Requirement::Role(Role::Admin),
    ),
    (
        "/smartscale.v1.Identities/RevokeIdentity",
        Requirement::Role(Role::Admin),
    ),
    ("/smartscale.v1.Checks/Check", Requirement::Role(Role::Viewer)),
    (
        "/smartscale.v1.Checks/CheckAgents",
        Requirement::Role(Role::Viewer),
    ),
    // An auditor must not need the power to change anything.
    ("/smartscale.v1.Audit/ListAudit", Requirement::Role(Role::Viewer)),
    (
        "/smartscale.v1.Audit/ExportAudit",
        Requirement::Role(Role::Viewer),
    ),
];

/// Who may call the method at `path` (`/package.Service/Method`); `None` for one that nobody may.
#[must_use]
pub fn requirement(path: &str) -> Option<Requirement> {
    TABLE
        .iter()
        .find(|(method, _)| *method == path)
        .map(|(_, requirement)| *requirement)
}

/// Whether `caller` (none without a certificate) may call the method at `path`.
///
/// # Errors
/// [`Refusal`], which maps onto the gRPC code of the same name.
pub fn authorise(path: &str, caller: Option<&Party>) -> Result<(), Refusal> {
    let Some(requirement) = requirement(path) else {
        return Err(if caller.is_some() {
            Refusal::PermissionDenied
        } else {
            Refusal::Unauthenticated
        });
    };
    match (requirement, caller) {
        (Requirement::Anybody, _) | (Requirement::Agent, Some(Party::Agent { .. })) => Ok(()),
        (Requirement::Role(least), Some(Party::Admin { role, .. })) if *role >= least => Ok(()),
        (_, Some(_)) => Err(Refusal::PermissionDenied),
        (_, None) => Err(Refusal::Unauthenticated),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn methods() -> Vec<String> {
        let set =
            prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("a descriptor set");
        let services = set.file.iter().flat_map(|file| {
            file.service
                .iter()
                .map(move |service| (file.package().to_owned(), service.clone()))
        });
        services
            .flat_map(|(package, service)| {
                let prefix = format!("/{package}.{}/", service.name());
                service
                    .method
                    .iter()
                    .map(|method| format!("{prefix}{}", method.name()))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn parties() -> Vec<Option<Party>> {
        let admin = |role| {
            Some(Party::Admin {
                role,
                name: "jo".parse().expect("a name"),
            })
        };
        vec![
            None,
            Some(Party::Coordinator),
            Some(Party::Agent {
                instance: "i-1".parse().expect("a name"),
            }),
            admin(Role::Viewer),
            admin(Role::Operator),
            admin(Role::Admin),
        ]
    }

    #[test]
    fn every_method_of_the_contract_has_been_decided_about_and_no_other() {
        let mut contract = methods();
        contract.sort();
        assert!(contract.len() >= 20, "the walk sees the contract");
        let mut table: Vec<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        table.sort();
        assert_eq!(contract, table);
    }

    #[test]
    fn every_method_admits_exactly_the_parties_that_its_requirement_names() {
        for path in methods() {
            for caller in parties() {
                let expected = match (requirement(&path), &caller) {
                    (Some(Requirement::Anybody), _) => Ok(()),
                    (_, None) => Err(Refusal::Unauthenticated),
                    (Some(Requirement::Agent), Some(Party::Agent { .. })) => Ok(()),
                    (Some(Requirement::Role(Role::Viewer)), Some(Party::Admin { .. })) => Ok(()),
                    (
                        Some(Requirement::Role(Role::Operator)),
                        Some(Party::Admin {
                            role: Role::Operator | Role::Admin,
                            ..
                        }),
                    ) => Ok(()),
                    (
                        Some(Requirement::Role(Role::Admin)),
                        Some(Party::Admin {
                            role: Role::Admin, ..
                        }),
                    ) => Ok(()),
                    _ => Err(Refusal::PermissionDenied),
                };
                assert_eq!(
                    authorise(&path, caller.as_ref()),
                    expected,
                    "{path} by {caller:?}"
                );
            }
        }
    }

    #[test]
    fn a_method_outside_the_table_is_refused_for_everybody() {
        for caller in parties() {
            assert!(authorise("/smartscale.v1.Admin/Unheard", caller.as_ref()).is_err());
            assert!(authorise("", caller.as_ref()).is_err());
        }
    }
}
