//! What a launch template must say, so that no container of a pod and nobody with an image of its disk gets at what is the
//! node's own, and so that a machine can be terminated. A launch cannot say it in the template's stead: overrides of a fleet
//! know neither metadata options nor encryption.

use aws_sdk_ec2::types::{
    LaunchTemplateHttpTokensState, LaunchTemplateInstanceMetadataOptions, ResponseLaunchTemplateData,
};
use base64::Engine as _;

/// What is wrong with a template, as sentences.
pub(super) fn faults(data: &ResponseLaunchTemplateData) -> Vec<&'static str> {
    let mut faults = Vec::new();
    let metadata = data.metadata_options();
    let tokens = metadata.and_then(|metadata| metadata.http_tokens());
    if tokens != Some(&LaunchTemplateHttpTokensState::Required) {
        faults.push("IMDSv1 is not refused (MetadataOptions.HttpTokens is not `required`)");
    }
    let hops = metadata.and_then(LaunchTemplateInstanceMetadataOptions::http_put_response_hop_limit);
    if hops.is_some_and(|hops| hops > 1) {
        faults.push(
            "pods reach the machine's metadata, its role's credentials among it (MetadataOptions.HttpPutResponseHopLimit \
             is above 1)",
        );
    }
    let volumes = data
        .block_device_mappings()
        .iter()
        .filter_map(|mapping| mapping.ebs());
    let encrypted: Vec<bool> = volumes.map(|volume| volume.encrypted() == Some(true)).collect();
    if encrypted.is_empty() {
        faults.push(
            "no volume is said to be encrypted (BlockDeviceMappings is empty): the account's default and the image decide",
        );
    } else if encrypted.contains(&false) {
        faults.push("a volume is not encrypted (BlockDeviceMappings[].Ebs.Encrypted)");
    }
    if data.disable_api_termination() == Some(true) {
        faults
            .push("machines are protected from termination (DisableApiTermination): they cannot be removed");
    }
    if data.user_data().is_some_and(holds_token) {
        faults.push(
            "UserData holds a K3s token: whoever may describe the template or run in a pod can join nodes",
        );
    }
    faults
}

/// Whether base64 text holds a token in K3s' secure form, `K10` with a SHA-256 in hexadecimal and `::`.
fn holds_token(user_data: &str) -> bool {
    const DIGITS: usize = 64;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(user_data.trim())
        .unwrap_or_default();
    decoded.windows(3 + DIGITS + 2).any(|window| {
        let (prefix, rest) = window.split_at(3);
        let (hash, end) = rest.split_at(DIGITS);
        prefix == b"K10" && end == b"::" && hash.iter().all(u8::is_ascii_hexdigit)
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{
        LaunchTemplateBlockDeviceMapping, LaunchTemplateEbsBlockDevice,
        LaunchTemplateInstanceMetadataOptions, builders::ResponseLaunchTemplateDataBuilder,
    };

    use super::*;

    fn volume(encrypted: bool) -> LaunchTemplateBlockDeviceMapping {
        let ebs = LaunchTemplateEbsBlockDevice::builder().encrypted(encrypted);
        LaunchTemplateBlockDeviceMapping::builder()
            .device_name("/dev/sda1")
            .ebs(ebs.build())
            .build()
    }

    fn sound() -> ResponseLaunchTemplateDataBuilder {
        let metadata = LaunchTemplateInstanceMetadataOptions::builder()
            .http_tokens(LaunchTemplateHttpTokensState::Required)
            .http_put_response_hop_limit(1);
        ResponseLaunchTemplateData::builder()
            .metadata_options(metadata.build())
            .block_device_mappings(volume(true))
    }

    fn user_data(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    #[test]
    fn a_sound_template_has_no_faults_and_each_fault_is_named_by_its_key() {
        let script = user_data("#!/bin/sh\nsmartscale-agent init --coordinator 10.0.0.1 --ca-hash K10\n");
        let template = sound().disable_api_termination(false).user_data(script).build();
        assert!(faults(&template).is_empty());
        let hops = |hops| {
            LaunchTemplateInstanceMetadataOptions::builder()
                .http_tokens(LaunchTemplateHttpTokensState::Required)
                .http_put_response_hop_limit(hops)
                .build()
        };
        let token = user_data(&format!("export K3S_TOKEN=K10{}::node:secret\n", "0f".repeat(32)));
        for (template, key) in [
            (sound().set_metadata_options(None), "MetadataOptions.HttpTokens"),
            (sound().metadata_options(hops(2)), "HttpPutResponseHopLimit"),
            (
                sound().set_block_device_mappings(None),
                "BlockDeviceMappings is empty",
            ),
            (
                sound().block_device_mappings(volume(false)),
                "BlockDeviceMappings[].Ebs.Encrypted",
            ),
            (sound().disable_api_termination(true), "DisableApiTermination"),
            (sound().user_data(token), "UserData"),
        ] {
            let faults = faults(&template.build());
            assert_eq!(faults.len(), 1, "{key}: {faults:?}");
            assert!(faults[0].contains(key), "{key}: {faults:?}");
        }
    }
}
