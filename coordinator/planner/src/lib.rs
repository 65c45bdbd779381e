//! coordinator/planner
