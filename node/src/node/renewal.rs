//! Channels that this node keeps fresh: their heads are signed again before they expire, for as long as nobody else has
//! moved them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::{ChannelName, Flaw, Position};

use super::Node;
use super::channels::{Renewal, position};
use super::work::blocking;
use crate::trust::{Signed, Standby};

/// How often it is looked whether something is due, at least.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Nothing is signed again before the node has had so long to hear what happened while it was away; a quarter of a head's
/// lifetime, where that is less.
const HEARING: Duration = Duration::from_secs(60);

impl Node {
    /// Signs channels again when they are due, until it is cancelled.
    pub(super) async fn renew_channels(self: Arc<Self>) {
        loop {
            let mut wait = LOOK_EVERY;
            for signed in self.floors.all_signed().into_iter().filter(is_renewed_here) {
                let due = self.due_in(&signed);
                if due.is_zero() {
                    let channel = signed.place.channel();
                    let renewal = self.renew(signed).await;
                    self.note_renewal(&channel, &renewal);
                    if renewal == Renewal::Done {
                        wait = Duration::ZERO;
                    }
                } else {
                    wait = wait.min(due);
                }
            }
            let clock = self.clock();
            if clock.doubt.is_none() {
                let floors = self.floors.clone();
                if let Ok(Err(error)) = blocking(move || floors.note_time(clock.now, false)).await {
                    tracing::error!(%error, "the time cannot be noted");
                }
            }
            // Not in a circle, however short a head lasts.
            let wait = tokio::time::sleep(wait.max(Duration::from_millis(500)));
            tokio::select! {
                () = wait => {}
                // Another head was signed, which may be due before those looked at.
                () = self.head_signed.notified() => {}
            }
        }
    }

    /// How long until a head is to be signed again.
    fn due_in(&self, signed: &Signed) -> Duration {
        let lifetime = Duration::from_secs(signed.lifetime_seconds);
        let every = self.config.channels.renew_every.unwrap_or(lifetime / 3).min(lifetime * 2 / 3);
        let since = Duration::from_secs(self.now().saturating_sub(signed.at));
        let heard = HEARING.min(lifetime / 4).saturating_sub(self.started.elapsed());
        every.saturating_sub(since).max(heard)
    }

    async fn renew(self: &Arc<Self>, signed: Signed) -> Renewal {
        let _signing = self.signing.lock().await;
        let (channel, position) = (signed.place.channel(), signed.place.position());
        if self.floors.signed(&channel).as_ref() != Some(&signed) {
            // Signed meanwhile.
            return Renewal::Done;
        }
        if let Some(why) = self.is_anothers(&channel, position) {
            let given_up = Signed { keys: Vec::new(), ..signed };
            let floors = self.floors.clone();
            if let Ok(Err(error)) = blocking(move || floors.sign(given_up)).await {
                tracing::error!(%error, "that a channel is signed by others now cannot be noted");
            }
            return Renewal::Over(why);
        }
        let seen = self.channel(&channel);
        if let Some(flaw) = seen.state.flaws.iter().find(|flaw| matches!(flaw, Flaw::Contradicted { .. })) {
            return Renewal::Stuck(flaw.to_string());
        }
        let signers = match self.signers(&signed.keys).await {
            Ok(signers) => signers,
            Err(error) => return Renewal::Stuck(error.message),
        };
        match self.sign_head(channel, signed.release, signers, signed.lifetime_seconds, signed.standby).await {
            Ok(_) => Renewal::Done,
            Err(error) => Renewal::Stuck(error.message),
        }
    }

    /// Why a channel is no longer this node's to sign: a higher head than it has signed was seen.
    fn is_anothers(&self, channel: &ChannelName, own: Position) -> Option<String> {
        let heads = self.catalog.heads(channel);
        let highest = heads.iter().filter_map(|head| Some((position(head)?, head.id))).max();
        match (highest, self.floors.floor(channel).head) {
            (Some((at, head)), _) if at > own => Some(format!("a later head is signed by others (record {head})")),
            (_, Some(seen)) if seen > own => Some(format!("a later head (number {seen}) was seen before")),
            _ => None,
        }
    }

    /// Says what becomes of a channel, once.
    pub(super) fn note_renewal(&self, channel: &ChannelName, renewal: &Renewal) {
        let title = self.channel_title(channel);
        let mut stuck = self.stuck_channels.lock().unwrap_or_else(PoisonError::into_inner);
        match renewal {
            Renewal::Done => {
                stuck.remove(channel);
                tracing::debug!(channel = title, "signed again");
            }
            Renewal::Over(why) => {
                stuck.remove(channel);
                tracing::info!(channel = title, "this node does not sign it again: {why}");
            }
            Renewal::Stuck(why) => {
                if stuck.insert(channel.clone(), why.clone()).as_ref() != Some(why) {
                    tracing::warn!(channel = title, "it cannot be signed again: {why}");
                }
            }
        }
    }

    /// Channels that this node should sign again and cannot, each with the reason.
    pub(crate) fn stuck_channels(&self) -> Vec<(ChannelName, String)> {
        let stuck = self.stuck_channels.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.iter().map(|(channel, why)| (channel.clone(), why.clone())).collect()
    }

    /// Channels that this node has set, and that contradict themselves.
    pub(crate) fn contradicted_channels(&self) -> Vec<ChannelName> {
        let channels = self.floors.all_signed().into_iter().map(|signed| signed.place.channel());
        let is_contradicted = |channel: &ChannelName| {
            self.channel(channel).state.flaws.iter().any(|flaw| matches!(flaw, Flaw::Contradicted { .. }))
        };
        channels.filter(is_contradicted).collect()
    }

    /// Channels of publishers that policy names, and of this node's own keys, whose head expired while nothing newer came: with
    /// how many seconds ago, those of the longest time first.
    pub(crate) fn frozen_channels(&self) -> Vec<(ChannelName, UnixSeconds)> {
        let now = self.now();
        let since = |channel: &ChannelName| {
            let flaws = self.channel(channel).state.flaws;
            flaws.iter().find_map(|flaw| match flaw {
                Flaw::Frozen { since } => Some(now.saturating_sub(*since)),
                _ => None,
            })
        };
        let channels = self.channels_known(None).unwrap_or_default();
        let mut frozen: Vec<_> =
            channels.into_iter().filter_map(|channel| since(&channel).map(|seconds| (channel, seconds))).collect();
        frozen.sort_by(|(a, longer), (b, shorter)| (shorter, a).cmp(&(longer, b)));
        frozen
    }

    /// Whether this node signs a channel again before it expires, and when it will.
    pub(crate) fn renews_at(&self, channel: &ChannelName) -> Option<UnixSeconds> {
        let signed = self.floors.signed(channel).filter(is_renewed_here)?;
        let is_ours = self.channel(channel).authority.epoch() == Some(signed.place.position().epoch);
        is_ours.then(|| self.now().saturating_add(self.due_in(&signed).as_secs()))
    }
}

/// Whether this node makes the renewals, and does not only sign those of others.
fn is_renewed_here(signed: &Signed) -> bool {
    !signed.keys.is_empty() && signed.standby != Standby::Cosigns
}
