//! Real servers for tests, each a struct: started with `start`, bound to loopback on a free port, ended when dropped,
//! its output in the test's [`Folder`], which stays when the test fails.
//!
//! | struct | is | stands for |
//! | --- | --- | --- |
//! | [`Kubernetes`] | kube-apiserver, -controller-manager, -scheduler on kine | the K3s server |
//! | [`Kwok`] | KWOK | kubelets by the thousand |
//! | [`DynamoDb`] | DynamoDB Local | DynamoDB |
//! | [`Ec2`] | moto behind the rig's wrapper | EC2 |
//! | [`Ministack`] | ministack | Secrets Manager, SNS, SQS, CloudWatch, STS |
//! | [`Prometheus`] | Prometheus, its exporter in the test | Prometheus and node-exporter |
//! | [`Imds`] | a server in the test | the metadata service of one instance |
//! | [`BootWatcher`] | the real agent and a stand-in kubelet for each instance | the hardware |
//! | [`Stack`] | all of them together | an AWS account with a K3s cluster |
//!
//! The programs come from `tests/rig/install` (`make tools`).

pub mod aws;
pub mod cache;
mod dynamodb;
pub mod ec2;
mod folder;
pub mod http;
pub mod imds;
pub mod kubernetes;
mod kwok;
pub mod machines;
mod ministack;
mod port;
pub mod process;
pub mod programs;
mod prometheus;
mod stack;
pub mod wait;

pub use dynamodb::DynamoDb;
pub use ec2::Ec2;
pub use folder::Folder;
pub use imds::Imds;
pub use kubernetes::Kubernetes;
pub use kwok::{Kwok, is_ready};
pub use machines::BootWatcher;
pub use ministack::{Ministack, Topic};
pub use prometheus::{Figures, Prometheus};
pub use stack::Stack;

/// Makes ring the process' TLS provider; it does nothing when that has happened.
pub fn install_crypto() {
    // An error says only that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
