//! Decision records for people.

use smartscale_planner::Action;
use smartscale_proto::{
    time::to_wire,
    v1::{DecisionView, ListDecisionsRequest, ListDecisionsResponse},
};
use tonic::Status;

use super::{AdminDesk, limit, unavailable};
use crate::state::records::{DecisionRecord, Record as _};

/// Records that are looked through for those that did something.
const LOOKED_THROUGH: usize = 2_000;

impl AdminDesk {
    pub(super) async fn decisions(
        &self,
        request: ListDecisionsRequest,
    ) -> Result<ListDecisionsResponse, Status> {
        let limit = limit(request.limit)?;
        let read = if request.include_idle {
            limit
        } else {
            LOOKED_THROUGH
        };
        let items = self.beside.store.list(DecisionRecord::PREFIX, true, read).await;
        let mut decisions = Vec::new();
        for item in items.map_err(|error| unavailable(&error))? {
            match DecisionRecord::from_item(&item) {
                Ok(record) if request.include_idle || record.plan.action != Action::None => {
                    decisions.push(view(&record)?);
                }
                Ok(_) => {}
                // One that an older version wrote hides none of the others.
                Err(error) => tracing::warn!(%error, "a decision record cannot be read"),
            }
            if decisions.len() == limit {
                break;
            }
        }
        Ok(ListDecisionsResponse { decisions })
    }
}

pub(super) fn view(record: &DecisionRecord) -> Result<DecisionView, Status> {
    let plan_json = serde_json::to_string(&record.plan)
        .map_err(|error| Status::internal(format!("the plan has no JSON form: {error}")))?;
    Ok(DecisionView {
        id: record.id.to_string(),
        time: Some(to_wire(record.last_time)),
        action: record.plan.action.to_string(),
        summary: record.plan.summary.clone(),
        operations: record.operations.iter().map(ToString::to_string).collect(),
        mode: record.mode.clone(),
        epoch: record.epoch.0,
        plan_json,
        cost_change_per_hour: record.cost_change_per_hour,
        repeats: record.repeats,
    })
}
