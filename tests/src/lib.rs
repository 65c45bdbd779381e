//! Rigs that start real servers, and sites where the programs run among them, for the end-to-end suites
//! (`tests/tests/`), load tests and benchmarks.

pub mod load;
pub mod rig;
pub mod site;
