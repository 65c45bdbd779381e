//! The checks of single tables and keys. Each error names the key's path and what would be right.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use smartscale_proto::{
    identity::Segment,
    tls::{Anchors, keys},
};

use super::{Attestor, ConfigError, Drain, Health, Imds, K3s, Secrets, raw};
use crate::{drain, http, machine::Machine};

pub(super) fn segment(path: &str, text: &str) -> Result<Segment, ConfigError> {
    text.parse()
        .map_err(|error: smartscale_proto::identity::BadIdentity| ConfigError::at(path, error.to_string()))
}

pub(super) fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: ::http::Uri = format!("http://{endpoint}/")
        .parse()
        .map_err(|_| not_endpoint(endpoint))?;
    if uri.host().is_none() || uri.port_u16().is_none() || uri.path() != "/" || endpoint.contains('@') {
        return Err(not_endpoint(endpoint));
    }
    Ok(())
}

fn not_endpoint(endpoint: &str) -> String {
    format!("`{endpoint}` is not an address: host:port is, for example 10.0.0.10:7443")
}

pub(super) fn absolute(path: &str, folder: &Path) -> Result<(), ConfigError> {
    if folder.is_absolute() {
        return Ok(());
    }
    Err(ConfigError::at(
        path,
        format!("`{}` is not an absolute path", folder.display()),
    ))
}

pub(super) fn within(
    path: &str,
    span: raw::Span,
    least: Duration,
    most: Duration,
) -> Result<Duration, ConfigError> {
    if (least..=most).contains(&span.0) {
        return Ok(span.0);
    }
    Err(ConfigError::at(
        path,
        format!("{:?} is out of bounds: {least:?} to {most:?} is right", span.0),
    ))
}

pub(super) fn anchors(file: Option<&Path>, fingerprint: Option<&str>) -> Result<Anchors, ConfigError> {
    match (file, fingerprint) {
        (Some(file), None) => {
            let pem = fs::read(file)
                .map_err(|error| ConfigError::at("ca_file", format!("{}: {error}", file.display())))?;
            let certificates = keys::certificates_from_pem(&pem)
                .map_err(|error| ConfigError::at("ca_file", format!("{}: {error}", file.display())))?;
            Ok(Anchors::Certificates(certificates))
        }
        (None, Some(text)) => text
            .split(',')
            .map(keys::parse_fingerprint)
            .collect::<Result<_, _>>()
            .map(Anchors::Fingerprints)
            .map_err(|error| ConfigError::at("ca_fingerprint", error.to_string())),
        (None, None) => Err(ConfigError::at(
            "ca_file",
            "the coordinator's certificate authority must be known: set ca_file or ca_fingerprint",
        )),
        (Some(_), Some(_)) => Err(ConfigError::at(
            "ca_fingerprint",
            "ca_file is set too: only one of them is right",
        )),
    }
}

pub(super) fn machine(raw: raw::Machine) -> Result<Machine, ConfigError> {
    let label = |path: &str, text: &str| {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if text.len() <= 63 && text.bytes().all(sound) {
            return Ok(());
        }
        let message = format!("`{text}` is no label: at most 63 letters, digits, `.`, `-` or `_` are");
        Err(ConfigError::at(path, message))
    };
    label("machine.type", &raw.instance_type)?;
    label("machine.zone", &raw.zone)?;
    Ok(Machine {
        id: segment("machine.id", &raw.id)?,
        instance_type: raw.instance_type,
        zone: raw.zone,
        market: raw.market,
        private_ip: raw.ip,
        provider_id: raw.provider_id,
    })
}

pub(super) fn attestor(raw: raw::Attestor, has_imds: bool) -> Result<Attestor, ConfigError> {
    match raw.kind {
        raw::AttestorKind::Token => {
            absolute("attestor.token_file", &raw.token_file)?;
            Ok(Attestor::Token(raw.token_file))
        }
        raw::AttestorKind::Ec2 if !has_imds => Err(ConfigError::at(
            "attestor.kind",
            "a [machine] that is described here is no EC2 instance: `token` is right",
        )),
        raw::AttestorKind::Ec2 => Ok(match raw.credentials {
            raw::Credentials::Identity => Attestor::Ec2Identity,
            raw::Credentials::Profile => Attestor::Ec2Profile,
        }),
    }
}

pub(super) fn imds(raw: raw::Imds) -> Result<Imds, ConfigError> {
    http::authority(&raw.endpoint).map_err(|error| ConfigError::at("imds.endpoint", error.to_string()))?;
    if !(1..=64).contains(&raw.hops) {
        return Err(ConfigError::at(
            "imds.hops",
            format!("{} is out of bounds: 1 to 64 is right", raw.hops),
        ));
    }
    Ok(Imds {
        endpoint: raw.endpoint,
        hops: raw.hops,
    })
}

pub(super) fn secrets(raw: raw::Secrets) -> Result<Secrets, ConfigError> {
    for (path, name) in [
        ("secrets.join_token", &raw.join_token),
        ("secrets.server", &raw.server),
    ] {
        // Secrets Manager's characters; with a folder it is a path below it.
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-:".contains(&byte);
        if name.is_empty() || !name.bytes().all(sound) || name.split('/').any(|part| part == "..") {
            return Err(ConfigError::at(
                path,
                format!("`{name}` is not the name of a secret"),
            ));
        }
    }
    let empty = |text: &Option<String>| text.as_deref() == Some("");
    for (path, text) in [
        ("secrets.region", &raw.region),
        ("secrets.endpoint", &raw.endpoint),
    ] {
        if empty(text) {
            return Err(ConfigError::at(
                path,
                "it is empty: leave the key out for the default",
            ));
        }
    }
    if let Some(folder) = &raw.folder {
        absolute("secrets.folder", folder)?;
    }
    Ok(Secrets {
        join_token: raw.join_token,
        server: raw.server,
        region: raw.region,
        endpoint: raw.endpoint,
        folder: raw.folder,
        from_coordinator: raw.from == raw::SecretsFrom::Coordinator,
    })
}

pub(super) fn k3s(raw: raw::K3s) -> Result<K3s, ConfigError> {
    for (path, file) in [
        ("k3s.config_dir", &raw.config_dir),
        ("k3s.data_dir", &raw.data_dir),
        ("k3s.kubeconfig", &raw.kubeconfig),
        ("k3s.runtime_socket", &raw.runtime_socket),
    ] {
        absolute(path, file)?;
    }
    http::authority(&raw.healthz).map_err(|error| ConfigError::at("k3s.healthz", error.to_string()))?;
    if raw.unit.is_empty() || raw.unit.starts_with('-') {
        return Err(ConfigError::at(
            "k3s.unit",
            format!("`{}` is not a unit: k3s-agent.service is", raw.unit),
        ));
    }
    let mut labels = Vec::new();
    for (key, value) in &raw.labels {
        let bad = |message: &str| ConfigError::at(format!("k3s.labels.{key}"), message);
        if key.contains("node-role.kubernetes.io") || key.starts_with("smartscale.io/") {
            return Err(bad(
                "a kubelet may not set this label, or SmartScale sets it itself",
            ));
        }
        if key.contains(['=', '\n']) || value.contains(['=', '\n']) {
            return Err(bad("it is no label"));
        }
        labels.push(format!("{key}={value}"));
    }
    Ok(K3s {
        config_dir: raw.config_dir,
        data_dir: raw.data_dir,
        kubeconfig: raw.kubeconfig,
        unit: raw.unit,
        systemctl: raw.systemctl,
        journalctl: raw.journalctl,
        healthz: raw.healthz,
        runtime_socket: raw.runtime_socket,
        labels,
    })
}

pub(super) fn health(raw: &raw::Health) -> Result<Health, ConfigError> {
    const LEAST: Duration = Duration::from_millis(200);
    const MOST: Duration = Duration::from_secs(600);
    let changing = within("health.changing_interval", raw.changing_interval, LEAST, MOST)?;
    let quiet = within("health.quiet_interval", raw.quiet_interval, LEAST, MOST)?;
    if quiet < changing {
        let message = format!("{quiet:?} is shorter than health.changing_interval ({changing:?})");
        return Err(ConfigError::at("health.quiet_interval", message));
    }
    Ok(Health {
        changing,
        quiet,
        services: within("health.services_interval", raw.services_interval, LEAST, MOST)?,
        pods: within("health.pods_interval", raw.pods_interval, LEAST, MOST)?,
    })
}

pub(super) fn drain(raw: &raw::Drain) -> Result<Drain, ConfigError> {
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);
    let two_minutes = Duration::from_secs(120);
    let force_grace = within(
        "drain.force_grace",
        raw.force_grace,
        SECOND,
        Duration::from_secs(3600),
    )?;
    Ok(Drain {
        terms: drain::Terms {
            timeout: within("drain.timeout", raw.timeout, SECOND, DAY)?,
            on_timeout: raw.on_timeout,
            spot_deadline: within("drain.spot.deadline", raw.spot.deadline, SECOND, two_minutes)?,
            spot_on_timeout: raw.spot.on_timeout,
            spot_reserve: within("drain.spot.reserve", raw.spot.reserve, SECOND, two_minutes)?,
            local_storage: raw.local_storage,
        },
        settings: drain::Settings {
            force_grace,
            ..drain::Settings::default()
        },
    })
}

pub(super) fn metrics(listen: Option<SocketAddr>) -> Result<Option<SocketAddr>, ConfigError> {
    match listen {
        Some(address) if !address.ip().is_loopback() => {
            let message = format!(
                "{address} is no address of loopback: 127.0.0.1:9109 is, and whoever scrapes from afar asks the coordinator"
            );
            Err(ConfigError::at("metrics.listen", message))
        }
        listen => Ok(listen),
    }
}
