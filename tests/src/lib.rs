//! Rigs that start real servers, for the end-to-end suites (`tests/tests/`), load tests and benchmarks.

pub mod rig;
