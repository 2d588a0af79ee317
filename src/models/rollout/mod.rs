//! Which version of a model answers whom, who said so, and the way back.
//!
//! * [`roles`] – the roles of a model's versions.
//! * [`share`] – the customers that a canary answers: few, and always the same.
//! * [`transition`] – from one set of roles to the next.
//! * [`next`] – what a transition leads to with the versions that there are.
//! * [`journal`] – where roles are kept, through every crash.
//! * [`accept`] – what is recorded of a version that is sent.
//! * [`by_number`] – who answers where nothing was said, for the ledger.
//! * [`rollouts`] – makes transitions: recorded, kept, and then in force.

pub mod accept;
mod by_number;
pub mod journal;
pub mod next;
pub mod roles;
pub mod rollouts;
pub mod share;
pub mod transition;

pub use roles::{AllRoles, Canary, Guardrails, Role, Roles, Shadow, TakenBack};
pub use rollouts::{Change, RolloutError, Rollouts};
pub use share::Share;
pub use transition::Transition;
