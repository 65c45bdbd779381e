//! Adapters to the Kubernetes API: the watch, actions on nodes, events and annotations.
//!
//! All of them speak through [`api::Api`], which bounds every call in time and never repeats one by itself: a 429
//! is an answer to an eviction, not a hiccup.

pub mod annotations;
pub mod api;
pub mod check;
pub mod client;
pub mod clock;
pub mod events;
mod gist;
mod hand_over;
pub mod join_tokens;
pub mod nodes;
pub mod policy;
mod steering;
pub mod watch;

#[cfg(test)]
mod testing;
