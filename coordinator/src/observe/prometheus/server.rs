//! A Prometheus server: one call of its HTTP API, with the credential, and whether what comes back is an answer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use smartscale_proto::time::SharedClock;

use super::{Auth, BadSettings, Settings};
use crate::observe::web;

/// A Prometheus server, by its address.
#[derive(Debug)]
pub struct Server {
    web: web::WebClient,
    /// Without a slash at its end.
    url: String,
    auth: Auth,
}

impl Server {
    /// A server as the settings say. Nothing is contacted.
    ///
    /// # Errors
    /// [`BadSettings`] naming the key.
    pub fn new(settings: &Settings, clock: SharedClock) -> Result<Self, BadSettings> {
        let bad = |key, reason: String| BadSettings { key, reason };
        web::address(&settings.url).map_err(|reason| bad("url", reason))?;
        let web = web::WebClient::new(
            settings.ca_file.as_deref(),
            settings.timeout,
            settings.most_bytes,
            clock,
        )
        .map_err(|error| bad("ca_file", error.to_string()))?;
        Ok(Self {
            web,
            url: settings.url.trim_end_matches('/').to_owned(),
            auth: settings.auth.clone(),
        })
    }

    /// What an endpoint below `/api/v1/` answers to a form.
    pub(super) async fn ask(&self, endpoint: &str, form: &[(&str, &str)]) -> Result<Data, String> {
        self.ask_with_warnings(endpoint, form).await.map(|(data, _)| data)
    }

    /// The same with the server's warnings.
    pub(super) async fn ask_with_warnings(
        &self,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<(Data, Vec<String>), String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/api/v1/{endpoint}", self.url))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if let Some(text) = self.authorization().await? {
            let value =
                web::secret_header(&text).ok_or("the credential has characters that no header may have")?;
            request = request.header(header::AUTHORIZATION, value);
        }
        let body = Full::new(Bytes::from(web::form(form)));
        let request = request.body(body).map_err(|error| error.to_string())?;
        let response = self.web.send(request).await.map_err(|error| error.to_string())?;
        parse(response.status(), response.body())
    }

    async fn authorization(&self) -> Result<Option<String>, String> {
        let read = async |path: &PathBuf| {
            tokio::fs::read_to_string(path)
                .await
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(match &self.auth {
            Auth::None => None,
            Auth::BearerFile(path) => Some(format!("Bearer {}", read(path).await?)),
            Auth::Basic { user, password_file } => {
                let pair = format!("{user}:{}", read(password_file).await?);
                Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            }
        })
    }
}

/// Prometheus' answer: <https://prometheus.io/docs/prometheus/latest/querying/api/>.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    error: Option<String>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
pub(super) enum Data {
    Vector(Vec<Series>),
    Scalar((f64, String)),
    Matrix(Vec<Line>),
    String(serde::de::IgnoredAny),
}

/// One series of an answer to an instant query: its labels, and its value with the time of evaluation.
#[derive(Deserialize)]
pub(super) struct Series {
    #[serde(default)]
    pub(super) metric: BTreeMap<String, String>,
    pub(super) value: Option<(f64, String)>,
}

/// One series of an answer to a query over a time: its labels, and its values with their times.
#[derive(Deserialize)]
pub(super) struct Line {
    #[serde(default)]
    pub(super) metric: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) values: Vec<(f64, String)>,
    /// Values that are histograms stand here.
    pub(super) histograms: Option<serde::de::IgnoredAny>,
}

/// A value. Go writes `NaN`, `+Inf` and `-Inf`; Rust reads all of them.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// The data of an answer and the server's warnings.
pub(super) fn parse(status: StatusCode, body: &[u8]) -> Result<(Data, Vec<String>), String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        if status.is_success() {
            format!("the answer is not Prometheus': {error}")
        } else {
            format!("answered {status}")
        }
    })?;
    match (answer.status.as_str(), answer.data) {
        ("success", Some(data)) => Ok((data, answer.warnings.unwrap_or_default())),
        ("success", None) => Err("answered without data".into()),
        _ => Err(format!(
            "{}: {}",
            answer.error_type.unwrap_or_else(|| status.to_string()),
            answer.error.unwrap_or_else(|| "no reason given".into())
        )),
    }
}
