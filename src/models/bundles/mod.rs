//! Where bundles are: the files of every version of every model, apart from what is loaded of them.
//!
//! [`Bundles`] is what a repository asks of a place: which versions there are, the files of one, whether
//! they have changed, and to take a new one. [`LocalDirectory`] is the place that there is; another one,
//! such as an object store, gives new bundles the same promise: a version is there wholly or not at all,
//! whatever ends the process meanwhile.

mod folders;
mod incoming;
mod local;

use std::time::SystemTime;

pub use self::folders::is_model_name;
pub use self::incoming::Incoming;
pub use self::local::LocalDirectory;
use super::version::{FILE_NAMES, Files};

/// A version of a model, by its name and number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleId {
    pub name: String,
    pub number: u64,
}

impl BundleId {
    /// The number as text: what the version is called.
    pub fn version(&self) -> String {
        self.number.to_string()
    }
}

/// What the files of a version look like from outside. Another one, and something has changed; the same,
/// and nothing has, as far as sizes and times tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Size and time of the last change of each of [`FILE_NAMES`], where there is one.
    pub files: [Option<(u64, SystemTime)>; FILE_NAMES.len()],
}

/// A place where bundles are kept.
pub trait Bundles: Send + Sync {
    /// What to call the place in a message.
    fn place(&self) -> String;

    /// The names of the models, sorted.
    ///
    /// # Errors
    /// When the place cannot be read.
    fn models(&self) -> std::io::Result<Vec<String>>;

    /// The versions of a model, oldest first; none when there is no such model.
    ///
    /// # Errors
    /// When the place cannot be read.
    fn versions(&self, name: &str) -> std::io::Result<Vec<BundleId>>;

    /// Graphs that lie there and belong to no version: where, and where a version's would be. Sorted.
    fn strays(&self) -> Vec<String>;

    /// The files of a version.
    ///
    /// # Errors
    /// Which one is missing, unreadable or too large.
    fn read(&self, bundle: &BundleId) -> Result<Files, String>;

    /// What the files of a version look like now.
    fn fingerprint(&self, bundle: &BundleId) -> Fingerprint;

    /// A place to put the files of a new version of that model, which nobody sees.
    ///
    /// # Errors
    /// When nothing can be written.
    fn receive(&self, name: &str) -> std::io::Result<Incoming>;

    /// The first number from `number` on under which there is nothing, not even a stray file.
    ///
    /// # Errors
    /// When there is none within reach.
    fn free_number(&self, name: &str, number: u64) -> std::io::Result<u64>;

    /// Makes what was received the version of that number. When this returns, the version is there
    /// wholly and stays when the machine loses its power; when it fails, nothing is there.
    ///
    /// # Errors
    /// When it cannot be written, or somebody else has taken the number meanwhile.
    fn publish(&self, incoming: Incoming, number: u64) -> std::io::Result<()>;

    /// Takes back a version that was published a moment ago.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn withdraw(&self, bundle: &BundleId) -> std::io::Result<()>;

    /// Removes what was received and never published, by a process that has ended.
    fn sweep(&self);
}
