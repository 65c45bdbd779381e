//! Real servers for tests, each a struct: started with `start`, bound to loopback on a free port, ended when dropped,
//! its output in the test's [`Folder`], which stays when the test fails.
//!
//! | struct | is | stands for |
//! | --- | --- | --- |
//! | [`Kubernetes`] | kube-apiserver, -controller-manager, -scheduler on kine | the K3s server |
//! | [`Supervisor`] | a server in the test | what a K3s server says of itself to those who join |
//! | [`Kwok`] | KWOK | kubelets by the thousand |
//! | [`DynamoDb`] | DynamoDB Local | DynamoDB |
//! | [`Ec2`] | moto behind the rig's wrapper | EC2 |
//! | [`Ministack`] | ministack | Secrets Manager, SNS, SQS, CloudWatch, STS that hands out sessions |
//! | [`Sts`] | a server in the test | STS that says whose signature a request bears |
//! | [`Prometheus`] | Prometheus, its exporter in the test | Prometheus and node-exporter |
//! | [`Imds`] | a server in the test | the metadata service of one instance |
//! | [`BootWatcher`] | the real agent and a stand-in kubelet for each instance | the hardware |
//! | [`Workers`] | the same on machines of their own: systemd, kubelet, containerd, pods | the hardware, less lightly |
//! | [`Stack`] | all of them together | an AWS account with a K3s cluster, or with two |
//! | [`Gate`](gate::Gate) | a proxy in the test | the moment between two calls of a program |
//! | [`skewed`](skew::skewed) | a library before the C library | a machine whose date is wrong |
//!
//! The programs come from `tests/rig/install` (`make tools`).

pub mod aws;
pub mod cache;
mod dynamodb;
pub mod ec2;
mod folder;
pub mod gate;
pub mod http;
pub mod imds;
pub mod kubernetes;
mod kwok;
pub mod machines;
mod ministack;
pub mod port;
pub mod process;
pub mod programs;
mod prometheus;
pub mod skew;
pub mod stack;
pub mod sts;
pub mod supervisor;
pub mod wait;
pub mod worker;

pub use dynamodb::DynamoDb;
pub use ec2::Ec2;
pub use folder::Folder;
pub use imds::Imds;
pub use kubernetes::Kubernetes;
pub use kwok::{Kwok, is_ready};
pub use machines::BootWatcher;
pub use ministack::{Ministack, Topic};
pub use prometheus::{Figures, Prometheus};
pub use stack::{Hardware, Stack};
pub use sts::Sts;
pub use supervisor::Supervisor;
pub use worker::Workers;

/// Makes ring the process' TLS provider; it does nothing when that has happened.
pub fn install_crypto() {
    // An error says only that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
