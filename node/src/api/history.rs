//! What was said of a release, in the order in which it reached this site.

use std::collections::BTreeSet;

use rialto_protocol::channel::ChannelName;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{EndorsementBody, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::{HistoryEvent, HistoryKind};

use super::view::{signer, time};
use crate::catalog::{Arrival, SharedRecord};
use crate::node::{Judged, Node};

/// Events that are listed; of more, the latest.
const MAX_EVENTS: usize = 500;

/// Everything that is known here of a release's life: who signed it, who endorsed and withdrew it, which channels point at
/// it. Heads of channels that a later one replaced are not among these: the catalog lets go of them.
pub(super) fn of(node: &Node, judged: &Judged) -> Vec<HistoryEvent> {
    let mut told = Told { node, events: Vec::new() };
    told.record(&judged.record, HistoryKind::Signed, String::new());
    for record in &judged.endorsements {
        let Some(said) = record.body.endorsement() else { continue };
        let what = match said.body {
            EndorsementBody::Native { .. } => said.predicate.to_string(),
            EndorsementBody::Dsse { .. } => format!("{} (the statement of others, brought here)", said.predicate),
        };
        told.record(record, HistoryKind::Endorsed, what);
    }
    for record in &judged.revocations {
        let Some(said) = record.body.revocation() else { continue };
        let of_what = match said.subject {
            RevocationSubject::Release(_) => String::new(),
            RevocationSubject::Endorsement(id) => format!("endorsement {id}: "),
            // Of a package, and not of this release.
            RevocationSubject::Advisory(_) => continue,
            RevocationSubject::Key(key) => format!("key {}: ", node.shown(&key)),
        };
        told.record(record, HistoryKind::Revoked, format!("{of_what}{}", said.reason));
    }
    if let Some(release) = judged.record.body.release() {
        for channel in node.catalog.channels_of(&release.publisher, &release.name) {
            for head in heads_at(node, &channel, judged) {
                told.record(&head, HistoryKind::Channel, channel.channel.to_string());
            }
        }
    }
    let mut events = told.events;
    // What came before arrivals were kept comes first, by its own word.
    events.sort_by_key(|(at, _)| *at);
    let surplus = events.len().saturating_sub(MAX_EVENTS);
    events.into_iter().skip(surplus).map(|(_, event)| event).collect()
}

fn heads_at(node: &Node, channel: &ChannelName, judged: &Judged) -> impl Iterator<Item = SharedRecord> {
    let release = judged.record.id;
    let heads = node.catalog.heads(channel);
    heads.into_iter().filter(move |record| record.body.channel().is_some_and(|head| head.release == release))
}

struct Told<'a> {
    node: &'a Node,
    /// With what they are ordered by.
    events: Vec<((Option<u64>, u64), HistoryEvent)>,
}

impl Told<'_> {
    /// A record reaching this site, and each of the signatures that it got later.
    fn record(&mut self, record: &Verified<Record>, kind: HistoryKind, what: String) {
        let arrivals = self.node.catalog.arrivals(&record.id);
        let mut known = BTreeSet::new();
        for (number, arrival) in arrivals.iter().flat_map(|arrivals| arrivals.iter()).enumerate() {
            known.extend(arrival.keys.iter().copied());
            let kind = if number == 0 { kind } else { HistoryKind::CoSigned };
            self.event(record, kind, &what, arrival);
        }
        // Signatures that came while arrivals were not kept, or all of them where the record has just left the catalog.
        let rest: Vec<PublicKey> = record.signers().filter(|key| !known.contains(*key)).copied().collect();
        if !rest.is_empty() {
            let kind = if known.is_empty() { kind } else { HistoryKind::CoSigned };
            let unknown = Arrival { at: None, from: Some("?".into()), keys: rest };
            self.event(record, kind, &what, &unknown);
        }
    }

    fn event(&mut self, record: &Verified<Record>, kind: HistoryKind, what: &str, arrival: &Arrival) {
        let event = HistoryEvent {
            kind,
            record: record.id,
            signed_by: arrival.keys.iter().map(|key| signer(self.node, key)).collect(),
            what: what.to_owned(),
            issued: time(record.header.issued),
            arrived: arrival.at.map(time),
            from: arrival.from.as_deref().map(str::to_owned),
        };
        self.events.push(((arrival.at, record.header.issued), event));
    }
}
