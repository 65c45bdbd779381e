//! K3s at the seams that the agent meets, since K3s itself is in no package registry: [`server`] beside the rig's control
//! plane, [`agent`] as the unit `k3s-agent` of a worker machine. What runs below is real: kubelet, containerd, runc, pods.
//!
//! ```text
//!   k3s-agent                                        server
//!   GET  /cacerts            (anonymous)        ───▶ the CA; its SHA-256 must be the one in the token
//!   GET  /v1-k3s/config      node:SECRET        ───▶ 401 for a wrong or an expired token
//!   POST /v1-k3s/client-kubelet.crt  + password ───▶ 403 when the node's name has another password
//!   GET  /v1-k3s/apiservers                     ───▶ where 127.0.0.1:6444 leads to
//!   containerd, kubelet ──127.0.0.1:6444──────────▶ kube-apiserver
//! ```

pub mod agent;
mod children;
mod passwords;
pub mod server;
pub mod token;

pub use server::Server;
