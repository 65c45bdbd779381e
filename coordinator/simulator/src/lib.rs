//! coordinator/simulator
