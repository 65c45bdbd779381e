//! What K3s reads of its configuration folder: scalars and lists, where `key+` adds to a list.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};

/// The merged configuration: each key with its values (one for a scalar).
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::rig) struct Configuration(BTreeMap<String, Vec<String>>);

impl Configuration {
    /// Reads `config.yaml`, if it is there, and then the folder of drop-ins, as K3s does.
    pub(in crate::rig) fn read_all(file: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut merged = Self::default();
        match std::fs::read_to_string(file) {
            Ok(text) => merged
                .add(&text)
                .with_context(|| format!("in {}", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        }
        merged.add_folder(folder)?;
        Ok(merged)
    }

    /// Reads all `*.yaml` of a folder in the names' order, as K3s does.
    pub(in crate::rig) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut merged = Self::default();
        merged.add_folder(folder)?;
        Ok(merged)
    }

    fn add_folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
        let mut files: Vec<_> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            self.add(&text)
                .with_context(|| format!("in {}", file.display()))?;
        }
        Ok(())
    }

    /// Adds one file: the subset of YAML that the agent writes (every value a double-quoted string).
    fn add(&mut self, text: &str) -> anyhow::Result<()> {
        let mut list: Option<String> = None;
        for line in text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        {
            let value = |text: &str| -> anyhow::Result<String> {
                serde_json::from_str(text.trim()).with_context(|| format!("not a quoted string: {line}"))
            };
            if let Some(item) = line.trim_start().strip_prefix("- ") {
                let key = list
                    .as_ref()
                    .with_context(|| format!("an item outside a list: {line}"))?;
                self.0.entry(key.clone()).or_default().push(value(item)?);
                continue;
            }
            let Some((key, rest)) = line.split_once(':') else {
                bail!("not a key: {line}")
            };
            let added = key.strip_suffix('+');
            let key = added.unwrap_or(key).to_owned();
            if added.is_none() {
                self.0.remove(&key);
            }
            if rest.trim().is_empty() {
                list = Some(key);
            } else {
                list = None;
                self.0.entry(key).or_default().push(value(rest)?);
            }
        }
        Ok(())
    }

    /// A scalar.
    pub(in crate::rig) fn get(&self, key: &str) -> anyhow::Result<&str> {
        let value = self.0.get(key).and_then(|values| values.last());
        value
            .map(String::as_str)
            .with_context(|| format!("the configuration has no {key}"))
    }

    /// A list.
    pub(in crate::rig) fn list(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// A list of `name=value`.
    pub(in crate::rig) fn pairs(&self, key: &str) -> impl Iterator<Item = (&str, &str)> {
        self.list(key).filter_map(|value| value.split_once('='))
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that cannot read its own text has failed"
    )]

    use super::Configuration;

    #[test]
    fn a_list_with_a_plus_adds_and_one_without_replaces() {
        let mut configuration = Configuration::default();
        configuration
            .add("node-label:\n  - \"a=1\"\nserver: \"https://old\"\n")
            .unwrap();
        configuration
            .add("# mine\nserver: \"https://new\"\nnode-label+:\n  - \"b=2\"\n")
            .unwrap();
        assert_eq!(configuration.get("server").unwrap(), "https://new");
        assert_eq!(
            configuration.pairs("node-label").collect::<Vec<_>>(),
            [("a", "1"), ("b", "2")]
        );
        configuration.add("node-label:\n- \"c=3\"\n").unwrap();
        assert_eq!(
            configuration.pairs("node-label").collect::<Vec<_>>(),
            [("c", "3")]
        );
    }
}
