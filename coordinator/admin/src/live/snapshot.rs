//! The files with which `smartscale plan` repeats a decision.

use std::{fs, path::Path};

use smartscale_proto::{time::from_wire, v1::SnapshotResponse};

use super::failure::Failure;

/// Writes them, and says the command that uses them.
pub(super) fn write(folder: &Path, files: &SnapshotResponse) -> Result<String, Failure> {
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::Failed(format!("{} cannot be written: {error}", path.display()))
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for (name, content) in [
        ("cluster.json", &files.objects_json),
        ("metrics.json", &files.metrics_json),
        ("state.json", &files.state_json),
        ("policy.toml", &files.policy_toml),
    ] {
        let path = folder.join(name);
        fs::write(&path, content).map_err(|error| failed(&path, &error))?;
    }
    let now = files.time.as_ref().and_then(|time| from_wire(time).ok());
    let now = now.map_or_else(String::new, |now| format!(" --now {now}"));
    let at = folder.display();
    Ok(format!(
        "written to {at}; to repeat the decision:\n  smartscale plan -f {at}/cluster.json --policy {at}/policy.toml \\\n    \
         --metrics {at}/metrics.json --state {at}/state.json{now}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    #[test]
    fn the_files_are_written_and_the_command_that_reads_them_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let files = SnapshotResponse {
            policy_toml: "[cluster]".to_owned(),
            ..SnapshotResponse::default()
        };
        let said = write(&folder.path().join("a/b"), &files).unwrap();
        assert!(said.contains("smartscale plan -f"));
        assert_eq!(
            fs::read_to_string(folder.path().join("a/b/policy.toml")).unwrap(),
            "[cluster]"
        );
    }
}
