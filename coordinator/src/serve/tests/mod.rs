//! The door as its callers meet it: real TLS on loopback.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod admin;
mod authorities;
mod causes;
mod checks;
mod cost;
mod demand;
mod enrolment;
mod fuzz;
mod hostile;
mod people;
mod sessions;
mod strangers;
