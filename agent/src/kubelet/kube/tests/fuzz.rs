//! What the kubelet's kubeconfig and the API server's answers may hold.

use smartscale_fuzz::{Target, fuzz};

use super::*;

const KUBECONFIG: &str = "apiVersion: v1
clusters:
- cluster: {server: 'https://127.0.0.1:6444', certificate-authority: /var/lib/ca.crt}
  name: local
contexts:
- context: {cluster: local, user: user}
  name: Default
current-context: Default
kind: Config
users:
- name: user
  user: {client-certificate: /c.crt, client-key: /c.key}
";

#[test]
fn kubeconfigs() {
    let target = Target {
        name: "agent/kubeconfig",
        seeds: &[
            KUBECONFIG.as_bytes(),
            br#"{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"b","user":"c"}}],"clusters":[],"users":[]}"#,
        ],
        words: &[
            "\n", "  ", "- ", ": ", "{", "}", "[", "]", "&a ", "*a", "!!int ", "|\n", ">\n", "? ", "---\n", "%YAML 1.2\n",
        ],
        kept: None,
    };
    fuzz(target, |input| match kubeconfig::choose(input) {
        Ok(_) => "taken".to_owned(),
        Err(error) => chain(&error),
    });
}

#[test]
fn a_kubeconfig_nested_without_end_is_refused_or_read() {
    for text in [
        "[".repeat(60_000),
        "- ".repeat(30_000),
        "{a: ".repeat(15_000),
        "? ".repeat(30_000),
    ] {
        let _ = kubeconfig::choose(text.as_bytes());
    }
}

#[test]
fn material_of_a_kubeconfig() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    let all = format!("{certificate}{}", key.serialize_pem());
    let target = Target {
        name: "agent/kubeconfig-material",
        seeds: &[all.as_bytes()],
        words: &[
            "-----BEGIN CERTIFICATE-----",
            "-----END EC PRIVATE KEY-----",
            "\n",
        ],
        kept: None,
    };
    fuzz(target, |input| {
        match kubeconfig::client_config(input, input, input) {
            Ok(_) => "taken".to_owned(),
            Err(error) => chain(&error),
        }
    });
}

#[test]
fn answers_of_the_api_server() {
    let target = Target {
        name: "agent/api-answers",
        seeds: &[
            br#"{"items":[{"metadata":{"name":"a","namespace":"default","uid":"u1"},"spec":{"nodeName":"n","priority":7,
                "terminationGracePeriodSeconds":5,"containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}]},
                "status":{"phase":"Running"}}]}"#,
            br#"{"metadata":{"name":"n","annotations":{"smartscale.io/draining":"op-1"}},"spec":{"unschedulable":true},
                "status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
            br#"{"status":"Failure","message":"m","details":{"retryAfterSeconds":3,
                "causes":[{"reason":"DisruptionBudget"}]},"code":429}"#,
        ],
        words: &[
            "\"metadata\":", "\"spec\":", "\"priority\":", "-9223372036854775808", "{", "}", "[", "]", ",", "\"\"",
            "\"cpu\":\"1e99999999\"", "\"containers\":", "\"deletionTimestamp\":\"0000-01-01T00:00:00Z\"",
        ],
        kept: None,
    };
    fuzz(target, |input| {
        let pods = match serde_json::from_slice::<PodList<manifests::Pod>>(input) {
            Ok(list) => list
                .items
                .iter()
                .map(|pod| own(pod).map_or_else(|refusal| refusal.to_string(), |_| "pod".to_owned()))
                .collect::<String>(),
            Err(error) => error.to_string(),
        };
        let node = serde_json::from_slice::<NodeView>(input)
            .map_or_else(|error| error.to_string(), |_| "node".to_owned());
        let refusals: String = [403, 404, 429, 500, 503]
            .map(|code| {
                let answer = Answer {
                    status: StatusCode::from_u16(code).unwrap(),
                    headers: http::HeaderMap::new(),
                    body: input.to_vec().into(),
                };
                let text = refused(&answer).to_string();
                assert!(text.chars().count() < 600, "a refusal stays short");
                format!("{code}")
            })
            .concat();
        format!("{pods} {node} {refusals}")
    });
}
