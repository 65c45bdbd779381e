//! The demand that leaders recorded, for those who want to try a policy on it.

use jiff::Timestamp;
use smartscale_planner::forecast::Hour;
use smartscale_proto::{
    time::to_wire,
    v1::{DemandStretch, ListDemandRequest, ListDemandResponse},
};
use tonic::Status;

use super::{AdminDesk, unavailable};
use crate::state::records::{ForecastHour, Record as _};

/// Eight weeks: no more is kept. As minutes on the wire that is half a megabyte.
const MOST_DAYS: u32 = 56;
/// Of an hour.
const MINUTES: usize = 60;

impl AdminDesk {
    pub(super) async fn demand(&self, request: ListDemandRequest) -> Result<ListDemandResponse, Status> {
        let days = match request.days {
            0 => MOST_DAYS,
            days @ 1..=MOST_DAYS => days,
            days => {
                return Err(Status::invalid_argument(format!(
                    "days: {days} is too many, 1 to {MOST_DAYS} are kept"
                )));
            }
        };
        let present = u64::try_from(self.now().as_second()).unwrap_or(0) / 3600;
        let oldest = present.saturating_sub(24 * u64::from(days));
        // The hour that runs has begun.
        let most = 24 * days as usize + 1;
        let items = self.beside.store.list(ForecastHour::PREFIX, true, most).await;
        let items = items.map_err(|error| unavailable(&error))?;
        let mut response = ListDemandResponse::default();
        for item in items.iter().rev() {
            match ForecastHour::from_item(item) {
                Ok(ForecastHour { hour, .. }) if (oldest..=present).contains(&hour.hour) => {
                    response.stretches.extend(stretches(&hour));
                }
                Ok(_) => {}
                Err(error) => response.notes.push(error.to_string()),
            }
        }
        Ok(response)
    }
}

/// The minutes of an hour that were observed.
fn stretches(hour: &Hour) -> Vec<DemandStretch> {
    let mut stretches: Vec<DemandStretch> = Vec::new();
    let mut goes_on = false;
    let starts = (i64::try_from(hour.hour).unwrap_or(i64::MAX).saturating_mul(3600)..).step_by(60);
    for (second, minute) in starts.zip(hour.minutes.iter().take(MINUTES)) {
        let (Some(cpu_millis), Ok(begins)) = (minute, Timestamp::from_second(second)) else {
            goes_on = false;
            continue;
        };
        match stretches.last_mut().filter(|_| goes_on) {
            Some(stretch) => stretch.cpu_millis.push(*cpu_millis),
            None => stretches.push(DemandStretch {
                begins: Some(to_wire(begins)),
                cpu_millis: vec![*cpu_millis],
                used_share: hour.share,
            }),
        }
        goes_on = true;
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_as_many_stretches_as_its_gaps_make_of_it() {
        let mut minutes = vec![None; 60];
        minutes[0] = Some(1);
        minutes[1] = Some(2);
        minutes[59] = Some(3);
        // More than an hour has.
        minutes.push(Some(4));
        let hour = Hour {
            hour: 490_000,
            share: Some(0.7),
            minutes,
        };
        let found: Vec<_> = stretches(&hour)
            .into_iter()
            .map(|stretch| {
                (
                    stretch.begins.unwrap_or_default().seconds - 490_000 * 3600,
                    stretch.cpu_millis,
                    stretch.used_share,
                )
            })
            .collect();
        assert_eq!(found, [(0, vec![1, 2], Some(0.7)), (59 * 60, vec![3], Some(0.7))]);
    }
}
