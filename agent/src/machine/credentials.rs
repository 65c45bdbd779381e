//! The credentials that EC2 gives to an instance, read from its metadata service.
//!
//! Two kinds: those of the role of its instance profile, for whatever the account's owner lets that role do, and those of its
//! identity role, which every instance has and which only say which instance it is.
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html>)

use serde::Deserialize;

use super::imds::Imds;
use crate::{error::Failure, secrets::Secret};

/// A key with the token of its session.
#[derive(Debug, Clone)]
pub(crate) struct SessionKey {
    pub(crate) id: String,
    pub(crate) secret: Secret,
    pub(crate) token: Secret,
}

/// Of which role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// EC2's own, for this instance.
    Identity,
    /// That of the instance profile.
    Profile,
}

/// As IMDS writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

impl SessionKey {
    /// The present key of `role`. They change every few hours, so they are read whenever they are needed.
    ///
    /// # Errors
    /// [`Failure`] saying what the instance lacks.
    pub(crate) async fn of(imds: &Imds, role: Role) -> Result<Self, Failure> {
        const ROLES: &str = "meta-data/iam/security-credentials/";
        const IDENTITY: &str = "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
        let path = match role {
            Role::Identity => IDENTITY.to_owned(),
            Role::Profile => {
                let roles = imds.get(ROLES).await?.unwrap_or_default();
                let role = roles.lines().next().unwrap_or_default();
                if role.is_empty() {
                    return Err(Failure::because(
                        "this instance has no role: give it an instance profile",
                    ));
                }
                format!("{ROLES}{role}")
            }
        };
        let text = Secret::new(imds.get(&path).await?.unwrap_or_default());
        if text.reveal().is_empty() {
            return Err(Failure::because(format!(
                "the instance metadata service has no credentials at {path}"
            )));
        }
        let written: Written = serde_json::from_str(text.reveal())
            .map_err(|error| Failure::because(format!("the credentials at {path} make no sense: {error}")))?;
        Ok(Self {
            id: written.access_key_id,
            secret: Secret::new(written.secret_access_key),
            token: Secret::new(written.token),
        })
    }
}
