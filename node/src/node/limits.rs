//! The limits of what is sent and received: by the configuration and the hour, until somebody sets others.

use std::time::Duration;

use rialto_web::api::{ChangeRates, RateLimit, Rates};

use super::Node;
use crate::net::bulk::Limits;
use crate::schedule::TimeOfDay;

/// How often the clock is looked at: a schedule counts minutes.
const LOOK_EVERY: Duration = Duration::from_secs(15);

impl Node {
    /// The limits in force.
    pub(crate) fn rates_now(&self) -> Rates {
        let Limits { upload, upload_per_peer, download } = self.exchange.limits();
        Rates { upload, upload_per_peer, download, is_overridden: self.rates_set.borrow().is_some() }
    }

    /// Sets other limits, which hold until the node stops or they are reset.
    pub(crate) fn change_rates(&self, change: ChangeRates) -> Rates {
        let configured = self.config.swarm.limits_at(TimeOfDay::now());
        self.rates_set.send_modify(|set| {
            if change.reset {
                *set = None;
            }
            let or = |limit: Option<RateLimit>, now: Option<u64>| limit.map_or(now, RateLimit::bytes_per_second);
            let base = set.unwrap_or(configured);
            let limits = Limits {
                upload: or(change.upload, base.upload),
                upload_per_peer: or(change.upload_per_peer, base.upload_per_peer),
                download: or(change.download, base.download),
            };
            if change != (ChangeRates { reset: change.reset, ..ChangeRates::default() }) {
                *set = Some(limits);
            }
        });
        self.apply_limits();
        self.rates_now()
    }

    /// Follows the schedule of the configuration.
    pub(super) async fn follow_schedule(self: std::sync::Arc<Self>) {
        loop {
            self.apply_limits();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn apply_limits(&self) {
        let set = *self.rates_set.borrow();
        let limits = set.unwrap_or_else(|| self.config.swarm.limits_at(TimeOfDay::now()));
        if limits != self.exchange.limits() {
            tracing::info!(?limits, "other limits of what is sent and received hold from now on");
            self.exchange.set_limits(limits);
        }
    }
}
