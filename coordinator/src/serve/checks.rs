//! What `smartscale check` asks: the service `Checks`. Each coordinator answers for itself, leader or not.

use std::sync::Arc;

use async_trait::async_trait;
use smartscale_proto::v1::{self, checks_server};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::audit::{Audit, audited};
use crate::check::Checks;

/// The service.
pub(super) struct ChecksDesk {
    /// One check at a time: it makes calls that are limited, and somebody who asks twice learns nothing more.
    checks: Mutex<Checks>,
    audit: Arc<Audit>,
}

impl ChecksDesk {
    pub(super) fn new(checks: Checks, audit: Arc<Audit>) -> Self {
        Self {
            checks: Mutex::new(checks),
            audit,
        }
    }
}

#[async_trait]
impl checks_server::Checks for ChecksDesk {
    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        audited(
            &self.audit,
            "/smartscale.v1.Checks/Check",
            request,
            |_| String::new(),
            |_, _| async {
                let report = self.checks.lock().await.report().await;
                Ok(v1::CheckResponse {
                    reports: vec![report.into()],
                })
            },
        )
        .await
    }
}
