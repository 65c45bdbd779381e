//! What the machines cost: by the second from launch to termination, a minute at least, at the price of their launch.

use std::time::Duration;

use jiff::Timestamp;

use super::Cloud;
use crate::cluster::signed;

/// EC2 bills at least so much.
const LEAST_BILLED: Duration = Duration::from_secs(60);

/// What the machines have cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Bill {
    /// Hours of all machines.
    pub node_hours: f64,
    /// USD.
    pub cost_usd: f64,
    /// Machines that were launched.
    pub launches: u32,
}

impl Cloud {
    /// What the machines have cost since `from`.
    #[must_use]
    pub fn bill(&self, from: Timestamp) -> Bill {
        self.bill_of(from, self.clock.now())
    }

    /// What the machines cost between two moments.
    #[must_use]
    pub fn bill_of(&self, from: Timestamp, until: Timestamp) -> Bill {
        let state = self.state();
        let mut bill = Bill::default();
        for entry in state.instances.values() {
            let launched = entry.instance.launched_at;
            let ended = entry.ended_at.unwrap_or(until).min(until);
            if launched > until || ended < from {
                continue;
            }
            let mut billed = ended.duration_since(launched.max(from));
            if launched >= from {
                bill.launches += 1;
                billed = billed.max(signed(LEAST_BILLED));
            }
            let hours = billed.as_secs_f64() / 3600.0;
            bill.node_hours += hours;
            bill.cost_usd += hours * entry.price;
        }
        bill
    }
}
