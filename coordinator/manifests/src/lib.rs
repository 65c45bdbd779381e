//! coordinator/manifests
