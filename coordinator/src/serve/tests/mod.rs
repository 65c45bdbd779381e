//! The door as its callers meet it: real TLS on loopback.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod admin;
mod enrolment;
mod sessions;
mod strangers;
