//! Who signed, as `GetCallerIdentity` says it, and what it says of an instance.

/// The role of the credentials that EC2 gives to every instance, for use by EC2 itself
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html#ec2-instance-identity-roles>).
pub(super) const IDENTITY_ROLE: &str = "aws:ec2-instance";
/// AWS' partitions.
const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];

/// The answer of `GetCallerIdentity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The account of the credentials.
    pub account: String,
    /// For a session of a role `arn:PARTITION:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub arn: String,
    /// For a session of a role, its id and after a colon the session's name.
    pub user_id: String,
}

/// A session of a role. EC2 names the sessions that it makes for an instance by the instance's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) account: String,
    pub(super) role: String,
    pub(super) name: String,
}

impl Session {
    /// The session that the signer is.
    pub(super) fn of(signer: &Signer) -> Result<Self, String> {
        let shown: String = signer.arn.chars().take(200).collect();
        let bad = || format!("the signer is {shown:?}, which is no session of an instance's role");
        // The role's name has colons where it is EC2's own.
        let parts: Vec<&str> = signer.arn.splitn(6, ':').collect();
        let ["arn", partition, "sts", "", account, resource] = parts.as_slice() else {
            return Err(bad());
        };
        let resource: Vec<&str> = resource.split('/').collect();
        let ["assumed-role", role, name] = resource.as_slice() else {
            return Err(bad());
        };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_instance = name.strip_prefix("i-").is_some_and(|digits| {
            matches!(digits.len(), 8 | 17)
                && digits
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        if !PARTITIONS.contains(partition) || !is_account || role.is_empty() || !is_instance {
            return Err(bad());
        }
        if *account != signer.account {
            return Err(format!("account {} is not that of {shown:?}", signer.account));
        }
        if signer.user_id.rsplit(':').next() != Some(name) {
            return Err(format!("user id {:?} is not that of {shown:?}", signer.user_id));
        }
        Ok(Self {
            account: (*account).to_owned(),
            role: (*role).to_owned(),
            name: (*name).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    fn signer(arn: &str) -> Signer {
        let name = arn.rsplit('/').next().unwrap_or_default();
        Signer {
            account: "123456789012".into(),
            arn: arn.into(),
            user_id: format!("AROAEXAMPLE:{name}"),
        }
    }

    #[test]
    fn both_kinds_of_sessions_name_their_instance() {
        for (role, partition) in [("aws:ec2-instance", "aws"), ("worker", "aws-us-gov")] {
            let arn = format!("arn:{partition}:sts::123456789012:assumed-role/{role}/i-0123456789abcdef0");
            let session = Session::of(&signer(&arn)).unwrap();
            assert_eq!(
                (session.role.as_str(), session.name.as_str()),
                (role, "i-0123456789abcdef0")
            );
        }
    }

    #[test]
    fn whoever_is_no_instance_is_nobody() {
        for arn in [
            "arn:aws:iam::123456789012:user/jo",
            "arn:aws:sts::123456789012:federated-user/i-0123456789abcdef0",
            "arn:aws:sts::123456789012:assumed-role/worker/jo",
            "arn:aws:sts::123456789012:assumed-role/worker/i-0123456789ABCDEF0",
            "arn:aws:sts::123456789012:assumed-role/worker/x/i-0123456789abcdef0",
            "arn:aws:sts::123456789012:assumed-role//i-0123456789abcdef0",
            "arn:aws:sts:us-east-1:123456789012:assumed-role/worker/i-0123456789abcdef0",
            "arn:evil:sts::123456789012:assumed-role/worker/i-0123456789abcdef0",
            "arn:aws:sts::12345678901:assumed-role/worker/i-0123456789abcdef0",
            "",
        ] {
            assert!(Session::of(&signer(arn)).is_err(), "{arn}");
        }
        let arn = "arn:aws:sts::123456789012:assumed-role/worker/i-0123456789abcdef0";
        let other = |change: fn(&mut Signer)| {
            let mut signer = signer(arn);
            change(&mut signer);
            Session::of(&signer)
        };
        assert!(other(|signer| signer.account = "210987654321".into()).is_err());
        assert!(other(|signer| signer.user_id = "AROAEXAMPLE:i-0fedcba9876543210".into()).is_err());
    }
}
