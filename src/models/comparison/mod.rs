//! How a version on trial does beside the one that answers.
//!
//! A version in *shadow* is run on the same rows as the version that answered: [`shadow`] compares pairs
//! of scores. A version in *canary* answers other customers than the champion: [`canary`] compares what
//! happened to both in the same stretch of time, and says when a limit is broken ([`guardrails`]).
//!
//! Everything here is bounded in memory whatever the traffic, and none of it acts: who rolls a canary
//! back is the server, who looks at a shadow's report is a human being.
//!
//! * [`distribution`] – counts in bins, for quantiles of anything that is not negative.
//! * [`ranks`] – whether two versions put customers into the same order.
//! * [`drift`] – how far two distributions of scores are apart.
//! * [`window`] – what happened lately.
//! * [`watched`] – a version's comparisons, from one load of it to the next.
//! * [`words`] – numbers in messages.

pub mod canary;
pub mod distribution;
pub mod drift;
pub mod guardrails;
pub mod ranks;
pub mod shadow;
pub mod watched;
pub mod window;
pub mod words;
