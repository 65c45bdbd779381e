//! EC2: moto behind the rig's wrapper (`tests/rig/ec2/server.py`), which adds client tokens, partial fleets, prices, faults
//! and a log of calls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    AttributeBooleanValue, InstanceType, LaunchTemplateBlockDeviceMappingRequest,
    LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateHttpTokensState,
    LaunchTemplateIamInstanceProfileSpecificationRequest, LaunchTemplateInstanceMetadataOptionsRequest,
    RequestLaunchTemplateData,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::process::{Process, Program};
use super::{Folder, aws, cache, http, port, process};

/// An EC2 of the test's own. Instance types and AMIs are validated.
#[derive(Debug)]
pub struct Ec2 {
    process: Process,
    address: SocketAddr,
}

/// How many instances an offering has left. A field that is `None` matches all; the first match counts; what no entry
/// names is unlimited.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Offering {
    /// Such as `m5.large`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Such as `us-east-1a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// `spot` or `on-demand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market: Option<String>,
    /// Instances left.
    pub available: u32,
    /// The error code when there are too few; `InsufficientInstanceCapacity` if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A price in the history of spot prices.
#[derive(Debug, Clone, Serialize)]
pub struct SpotPrice {
    /// Such as `m5.large`.
    pub instance_type: String,
    /// Such as `us-east-1a`.
    pub zone: String,
    /// As text: EC2 says so too.
    pub price: String,
    /// Such as `Linux/UNIX`.
    pub product: String,
    /// Since when it holds.
    pub at: Timestamp,
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Nothing has happened yet.
    #[default]
    Before,
    /// The call took effect, its answer is another one (or none).
    After,
}

/// What goes wrong with calls of one action.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Fault {
    /// Such as `CreateFleet`, or `*`.
    pub action: String,
    /// The error code; with none (and no `drop`) the fault is only a delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The HTTP status of the error; 400 if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Before or after the call takes effect.
    pub when: When,
    /// The connection ends without an answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drop: bool,
    /// Before the fault, in milliseconds.
    pub delay_ms: u64,
    /// How often it strikes; for ever if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Only requests whose (URL-encoded) parameters contain this.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub matching: String,
}

/// One call that arrived.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    /// When it arrived.
    pub at: Timestamp,
    /// The id of the key that signed it.
    pub key: String,
    /// Such as `CreateFleet`.
    pub action: String,
    /// Its client token.
    pub client_token: Option<String>,
    /// The HTTP status or the injected fault; `None` while it is under way.
    pub answer: Option<String>,
    /// The instances that its answer names, if it launches.
    #[serde(default)]
    pub instances: Vec<String>,
}

/// What a fleet needs in an account: a subnet a zone, an image, a launch template.
#[derive(Debug, Clone)]
pub struct World {
    /// Zone and subnet, in the zones' order.
    pub subnets: Vec<(String, String)>,
    /// The image of the workers.
    pub image: String,
    /// The launch template's id.
    pub launch_template: String,
    /// The launch template's name.
    pub launch_template_name: String,
}

impl Ec2 {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not come up within 60 s.
    pub async fn start(folder: &Folder) -> anyhow::Result<Self> {
        let python = cache::installed("venv/bin/python")?;
        let attempt = || {
            let address = port::free()?;
            let program = Program::new("ec2", &python)
                .arg(cache::source("ec2/server.py"))
                .arg(address.port().to_string())
                .env("MOTO_PORT", address.port().to_string())
                .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1")
                .env("MOTO_ENABLE_AMI_VALIDATION", "1")
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .folder(folder.path());
            Ok((program, address))
        };
        let ready = async |address| {
            Ok(http::get(&format!("http://{address}/_rig/health"))
                .await?
                .status
                .is_success())
        };
        let (process, address) = process::start(folder, Duration::from_secs(60), attempt, ready).await?;
        Ok(Self { process, address })
    }

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL_EC2` and `AWS_ENDPOINT_URL_PRICING`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client with the rig's own key, so that its calls are told apart from those of the programs.
    pub async fn client(&self) -> Client {
        Client::new(&aws::config(&self.url(), &aws::Key::rig()).await)
    }

    /// The process, to pause it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Sets the capacities; what was set before is forgotten.
    ///
    /// # Errors
    /// The wrapper does not answer.
    pub async fn set_offerings(&self, offerings: &[Offering]) -> anyhow::Result<()> {
        self.put("offerings", &serde_json::to_value(offerings)?).await
    }

    /// Sets the history of spot prices, and the price list's on-demand prices by type, as text.
    ///
    /// # Errors
    /// The wrapper does not answer.
    pub async fn set_prices(
        &self,
        spot: &[SpotPrice],
        on_demand: &BTreeMap<&str, &str>,
    ) -> anyhow::Result<()> {
        let prices = serde_json::json!({ "spot": spot, "on_demand": on_demand });
        self.put("prices", &prices).await
    }

    /// Sets the faults; what was set before is forgotten.
    ///
    /// # Errors
    /// The wrapper does not answer.
    pub async fn set_faults(&self, faults: &[Fault]) -> anyhow::Result<()> {
        self.put("faults", &serde_json::to_value(faults)?).await
    }

    /// All calls that arrived so far, in order.
    ///
    /// # Errors
    /// The wrapper does not answer.
    pub async fn calls(&self) -> anyhow::Result<Vec<Call>> {
        calls(&self.url()).await
    }

    /// How often each action was called since `since` by the programs, which all have the root key.
    ///
    /// # Errors
    /// The wrapper does not answer.
    pub async fn programs_calls(&self, since: Timestamp) -> anyhow::Result<BTreeMap<String, usize>> {
        let root = aws::Key::root().id;
        let calls = self.calls().await?;
        let theirs = calls
            .into_iter()
            .filter(|call| call.key == root && call.at >= since);
        let mut counts = BTreeMap::new();
        for call in theirs {
            *counts.entry(call.action).or_default() += 1;
        }
        Ok(counts)
    }

    /// Makes a VPC with a subnet in each of three zones, and a launch template `name` with an image of moto's, the
    /// instance profile `profile` and `user_data` (plain text).
    ///
    /// # Errors
    /// EC2 refused.
    pub async fn create_world(&self, name: &str, profile: &str, user_data: &str) -> anyhow::Result<World> {
        let client = self.client().await;
        let vpc = client
            .create_vpc()
            .cidr_block("10.7.0.0/16")
            .send()
            .await
            .context("create the VPC")?;
        let vpc = vpc
            .vpc()
            .and_then(|vpc| vpc.vpc_id())
            .context("a VPC without id")?
            .to_owned();
        let mut subnets = Vec::new();
        for (index, letter) in ["a", "b", "c"].into_iter().enumerate() {
            let zone = format!("{}{letter}", aws::REGION);
            let subnet = client
                .create_subnet()
                .vpc_id(&vpc)
                .availability_zone(&zone)
                .cidr_block(format!("10.7.{index}.0/24"))
                .send()
                .await
                .context("create a subnet")?;
            let id = subnet
                .subnet()
                .and_then(|subnet| subnet.subnet_id())
                .context("a subnet without id")?;
            subnets.push((zone, id.to_owned()));
        }
        let images = client
            .describe_images()
            .owners("amazon")
            .send()
            .await
            .context("list images")?;
        let image = images
            .images()
            .iter()
            .filter(|image| image.architecture().is_some_and(|arch| arch.as_str() == "x86_64"))
            .filter_map(|image| image.image_id())
            .min()
            .context("moto has no x86_64 image")?
            .to_owned();
        let data = template_data(&image, profile, user_data);
        let template = client
            .create_launch_template()
            .launch_template_name(name)
            .launch_template_data(data)
            .send()
            .await
            .context("create the launch template")?;
        let template = template
            .launch_template()
            .and_then(|template| template.launch_template_id())
            .context("a launch template without id")?;
        Ok(World {
            subnets,
            image,
            launch_template: template.to_owned(),
            launch_template_name: name.to_owned(),
        })
    }

    /// Makes another version of a world's launch template that differs in its user-data.
    ///
    /// # Errors
    /// EC2 refused.
    pub async fn set_user_data(&self, world: &World, profile: &str, user_data: &str) -> anyhow::Result<()> {
        self.client()
            .await
            .create_launch_template_version()
            .launch_template_id(&world.launch_template)
            .launch_template_data(template_data(&world.image, profile, user_data))
            .send()
            .await
            .context("create another version of the launch template")?;
        Ok(())
    }

    /// Protects an instance from termination, as a person in the console may.
    ///
    /// # Errors
    /// EC2 refused.
    pub async fn protect(&self, instance: &str) -> anyhow::Result<()> {
        self.client()
            .await
            .modify_instance_attribute()
            .instance_id(instance)
            .disable_api_termination(AttributeBooleanValue::builder().value(true).build())
            .send()
            .await
            .context("protect the instance")?;
        Ok(())
    }

    async fn put(&self, what: &str, value: &serde_json::Value) -> anyhow::Result<()> {
        let url = format!("{}/_rig/{what}", self.url());
        let answer = http::send("PUT", &url, &[], value.to_string()).await?;
        if !answer.status.is_success() {
            bail!("{url}: {} {}", answer.status, answer.body);
        }
        Ok(())
    }
}

/// The log of calls of the wrapper at `url`.
///
/// # Errors
/// The wrapper does not answer.
pub(super) async fn calls(url: &str) -> anyhow::Result<Vec<Call>> {
    let answer = http::get(&format!("{url}/_rig/calls")).await?;
    serde_json::from_str(&answer.body).context("read the log of calls")
}

/// What the launch template of a world says.
fn template_data(image: &str, profile: &str, user_data: &str) -> RequestLaunchTemplateData {
    use base64::Engine as _;
    RequestLaunchTemplateData::builder()
        .image_id(image)
        .instance_type(InstanceType::M5Large)
        .user_data(base64::engine::general_purpose::STANDARD.encode(user_data))
        .iam_instance_profile(
            LaunchTemplateIamInstanceProfileSpecificationRequest::builder()
                .name(profile)
                .build(),
        )
        .metadata_options(
            LaunchTemplateInstanceMetadataOptionsRequest::builder()
                .http_tokens(LaunchTemplateHttpTokensState::Required)
                .http_put_response_hop_limit(1)
                .build(),
        )
        .block_device_mappings(
            LaunchTemplateBlockDeviceMappingRequest::builder()
                .device_name("/dev/sda1")
                .ebs(
                    LaunchTemplateEbsBlockDeviceRequest::builder()
                        .encrypted(true)
                        .build(),
                )
                .build(),
        )
        .build()
}
