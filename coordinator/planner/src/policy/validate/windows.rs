//! Freezes and schedules: what comes again and again.

use std::time::Duration;

use jiff::SignedDuration;

use super::{Result, at_most, duration, error, positive_duration};
use crate::policy::{Freeze, Limits, Pool, Schedule, Warning, Window, raw, window::Invalid};

/// What lasts longer is no window any more.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn freeze(path: &str, raw: raw::Freeze) -> Result<Freeze> {
    if raw.stops.is_empty() {
        return error(
            format!("{path}.stops"),
            "is empty: expected \"scale_up\", \"scale_down\", \"replace\" or several of them",
        );
    }
    Ok(Freeze {
        window: window(path, &raw.cron, &raw.time_zone, &raw.duration, Duration::ZERO)?,
        stops: raw.stops,
    })
}

/// A schedule for the pools of the file, or one of them.
pub(super) fn schedule(path: &str, raw: raw::Schedule, limits: &Limits, pools: &[Pool]) -> Result<Schedule> {
    let at = |key: &str| format!("{path}.{key}");
    let lead = duration(&at("lead"), &raw.lead)?;
    if lead > LONGEST {
        return error(at("lead"), format!("{} is longer than a year", raw.lead));
    }
    let window = window(path, &raw.cron, &raw.time_zone, &raw.duration, lead)?;
    let pool = match &raw.pool {
        None => None,
        Some(name) => match pools.iter().find(|pool| pool.name.as_str() == name) {
            None => return error(at("pool"), format!("`{name}` is no [[pool]] of this file")),
            pool => pool,
        },
    };
    let (most, whose) = pool.map_or((limits.max_nodes, "limits.max_nodes"), |pool| {
        (pool.max_nodes, "the pool's max_nodes")
    });
    if raw.min_nodes > most {
        return error(
            at("min_nodes"),
            format!("{} is above {whose} = {most}", raw.min_nodes),
        );
    }
    let name = match raw.name {
        Some(name) if name.trim().is_empty() => {
            return error(at("name"), "is empty: expected a name, or none");
        }
        Some(name) => name,
        None => window.begins.clone(),
    };
    Ok(Schedule {
        name,
        window,
        min_nodes: at_most(at("min_nodes"), raw.min_nodes, super::MOST_MINIMUM)?,
        pool: pool.map(|pool| pool.name.clone()),
    })
}

/// What of the schedules cannot be had: together pools have bounds that no single schedule passes.
pub(super) fn out_of_reach(schedules: &[Schedule], limits: &Limits, pools: &[Pool]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let maximums: u64 = pools.iter().map(|pool| u64::from(pool.max_nodes)).sum();
    for (index, schedule) in schedules.iter().enumerate() {
        if schedule.pool.is_none() && maximums < u64::from(schedule.min_nodes) {
            warnings.push(Warning {
                path: format!("schedule[{index}].min_nodes"),
                message: format!(
                    "{} cannot be reached: the pools' max_nodes add up to {maximums}",
                    schedule.min_nodes
                ),
            });
        }
    }
    let most_of = |pool: &Pool| {
        let own = schedules.iter().filter(|s| s.pool.as_ref() == Some(&pool.name));
        own.map(|schedule| schedule.min_nodes)
            .fold(pool.min_nodes, u32::max)
    };
    let minimums: u64 = pools.iter().map(|pool| u64::from(most_of(pool))).sum();
    if minimums > u64::from(limits.max_nodes) {
        warnings.push(Warning {
            path: "schedule".into(),
            message: format!(
                "the pools' minimums add up to {minimums} where all schedules hold, above limits.max_nodes = {}: the pools \
                 that come first in the file are filled first",
                limits.max_nodes
            ),
        });
    }
    warnings
}

fn window(path: &str, cron: &str, time_zone: &str, lasts: &str, lead: Duration) -> Result<Window> {
    let at = |key: &str| format!("{path}.{key}");
    let length = positive_duration(&at("duration"), lasts)?;
    if length > LONGEST {
        return error(at("duration"), format!("{lasts} is longer than a year"));
    }
    let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    match Window::new(cron, time_zone, signed(length), signed(lead)) {
        Ok(window) => Ok(window),
        Err(Invalid::Cron(message)) => error(at("cron"), message),
        Err(Invalid::TimeZone(message)) => error(at("time_zone"), message),
    }
}
