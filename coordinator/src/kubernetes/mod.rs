//! Adapters to the Kubernetes API: the watch, actions on nodes, events.
