//! Section `[repository]`: which versions of the models are loaded, and how new ones come.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// Section `[repository]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepositoryConfig {
    /// `latest` or `all`.
    pub versions: VersionPolicy,
    /// With `latest`: how many of each model, those with the highest numbers. Versions with a role are
    /// loaded beyond that.
    pub latest: usize,
    /// The versions of some models, by their numbers, instead of what `versions` says.
    pub listed: BTreeMap<String, Vec<u64>>,
    /// How often the folder is looked at for new and changed versions; zero for never.
    #[serde(with = "humantime_serde")]
    pub watch: Duration,
    /// The largest body of an upload, in bytes; over it the answer is 413.
    pub max_upload_bytes: u64,
}

/// Which versions of a model are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionPolicy {
    #[default]
    Latest,
    All,
}

impl Default for RepositoryConfig {
    fn default() -> Self {
        RepositoryConfig {
            versions: VersionPolicy::default(),
            latest: 3,
            listed: BTreeMap::new(),
            watch: Duration::from_secs(2),
            max_upload_bytes: 256 * 1024 * 1024,
        }
    }
}

impl RepositoryConfig {
    /// Every version of every model, as they are now: for commands that look at all there is.
    pub fn everything() -> Self {
        RepositoryConfig {
            versions: VersionPolicy::All,
            watch: Duration::ZERO,
            ..RepositoryConfig::default()
        }
    }

    /// Whether the version is loaded without having a role, `newer` of its model having higher numbers.
    pub fn loads(&self, name: &str, number: u64, newer: usize) -> bool {
        match (self.listed.get(name), self.versions) {
            (Some(listed), _) => listed.contains(&number),
            (None, VersionPolicy::All) => true,
            (None, VersionPolicy::Latest) => newer < self.latest,
        }
    }

    /// The setting that leaves versions of that model out, for a message.
    pub fn setting(&self, name: &str) -> String {
        match self.listed.get(name) {
            Some(listed) => format!("repository.listed.{name} = {listed:?}"),
            None => format!("repository.latest = {}", self.latest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_chooses_by_number_and_by_name() {
        let config: RepositoryConfig =
            toml::from_str("latest = 2\nwatch = \"0s\"\n[listed]\nchurn = [1, 4]").unwrap();
        let loaded = |name: &str| -> Vec<u64> {
            let numbers = [1, 2, 3, 4, 5_u64];
            let numbered = numbers.into_iter().enumerate();
            let loaded = numbered.filter(|(index, n)| config.loads(name, *n, 4 - index));
            loaded.map(|(_, number)| number).collect()
        };
        assert_eq!(loaded("churn"), [1, 4]);
        assert_eq!(loaded("upsell"), [4, 5]);
        assert!(RepositoryConfig::everything().loads("upsell", 1, 1000));
        let wrong = toml::from_str::<RepositoryConfig>("versions = \"newest\"").unwrap_err();
        assert!(wrong.to_string().contains("latest"), "{wrong}");
    }
}
