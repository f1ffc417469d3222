//! What policy says of a release, with everything that the catalog knows of it.

use rialto_protocol::bounded::Name;
use rialto_protocol::channel::ChannelName;
use rialto_protocol::ids::{ImageId, PublicKey};
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;
use rialto_web::api::{ApiError, VerdictKind};

use super::Node;
use crate::catalog::SharedRecord;
use crate::trust::{Accepted, Action, ChannelFacts, Decision, Facts, Reading, Verdict, judge, revocation_subjects};

/// A release, what bears on it, and the verdict.
pub(crate) struct Judged {
    pub(crate) record: SharedRecord,
    pub(crate) endorsements: Vec<SharedRecord>,
    pub(crate) revocations: Vec<SharedRecord>,
    pub(crate) verdict: Verdict,
}

/// The channels of one appliance, and the delegations of its publisher that bear on it.
struct Channels {
    channels: Vec<(ChannelName, Vec<SharedRecord>)>,
    delegations: Vec<SharedRecord>,
}

impl Node {
    /// Judges a release by the policy in force. Quick: catalog look-ups and a pure function.
    pub(crate) fn judge(&self, record: SharedRecord) -> Judged {
        let state = self.policy.borrow().clone();
        let endorsements = self.catalog.endorsements_of(&record.id);
        let asks_for_channels = state.policy.as_ref().is_some_and(|policy| policy.asks_for_channels());
        let appliance = record.body.release().filter(|_| asks_for_channels);
        let channels = appliance.map(|release| self.channels_facts(&release.publisher, &release.name));
        let mut facts = Facts { endorsements: endorsements.iter().map(AsRef::as_ref).collect(), ..Facts::default() };
        if let Some(known) = &channels {
            facts.channels = (known.channels.iter())
                .map(|(channel, heads)| ChannelFacts {
                    channel: channel.clone(),
                    heads: heads.iter().map(AsRef::as_ref).collect(),
                    floor: self.floors.floor(channel),
                })
                .collect();
            facts.delegations = known.delegations.iter().map(AsRef::as_ref).collect();
        }
        let subjects = revocation_subjects(&record, &facts);
        let revocations: Vec<SharedRecord> =
            subjects.iter().flat_map(|subject| self.catalog.revocations_of(subject)).collect();
        facts.revocations = revocations.iter().map(AsRef::as_ref).collect();
        let Reading { now, doubt } = self.clock();
        let verdict = match doubt {
            Some(doubt) => Verdict::in_doubt(record.id, &doubt),
            None => judge(&state, &record, &facts, now),
        };
        Judged { record, endorsements, revocations, verdict }
    }

    fn channels_facts(&self, publisher: &PublicKey, name: &Name) -> Channels {
        let channels = self.catalog.channels_of(publisher, name);
        Channels {
            delegations: self.catalog.delegations(publisher, name),
            channels: channels.into_iter().map(|channel| (channel.clone(), self.catalog.heads(&channel))).collect(),
        }
    }

    /// Judges, writes the decision down, and gives what may be used; refuses otherwise.
    ///
    /// # Errors
    /// Policy does not accept it (with the reason), or the decision cannot be written down.
    pub(crate) fn decide(&self, record: SharedRecord, action: Action) -> Result<Accepted, ApiError> {
        let title = self.title(&record);
        let id = record.id;
        // What is acted on is not gone below any more, whatever is lost after it.
        let raised = record.body.release().map(|release| self.raise_floors([release.publisher]));
        let noted = raised.unwrap_or(Ok(())).and_then(|()| self.floors.note_time(self.clock().now, false));
        noted.map_err(|error| ApiError::failed(format!("{title}: {error}")))?;
        let verdict = self.judge(record).verdict;
        self.decisions
            .append(&Decision::new(&verdict, action, self.now()))
            .map_err(|error| ApiError::failed(format!("{title}: the decision cannot be logged: {error}")))?;
        let kind = verdict.kind();
        let because = verdict.because().to_owned();
        verdict.into_accepted().ok_or_else(|| {
            let held = match kind {
                VerdictKind::Reject => "is rejected",
                VerdictKind::Accept | VerdictKind::Hold => "is held",
            };
            ApiError::refused(format!("{title} {held} by this site's policy: {because}"))
                .with_hint(format!("see why with: rialto policy explain {id}"))
        })
    }

    /// `publisher/name@version` as this site knows it.
    pub(crate) fn title(&self, record: &Verified<Record>) -> String {
        match record.body.release() {
            Some(release) => format!("{}/{}@{}", self.shown(&release.publisher), release.name, release.version),
            None => record.id.to_string(),
        }
    }

    /// A key's petname, or its fingerprint.
    pub(crate) fn shown(&self, key: &PublicKey) -> String {
        let state = self.policy.borrow();
        state.policy.as_ref().map_or_else(|| key.fingerprint(), |policy| policy.shown(key))
    }

    /// A key's petname, where the policy gives one.
    pub(crate) fn petname(&self, key: &PublicKey) -> Option<String> {
        self.policy.borrow().policy.as_ref()?.petname(key).map(ToString::to_string)
    }

    /// Releases of the catalog that name the image, as titles.
    pub(crate) fn used_by(&self, image: &ImageId) -> Vec<String> {
        self.catalog.releases_of(image).iter().map(|record| self.title(record)).collect()
    }
}
