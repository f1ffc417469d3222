//! Channels of this site and of others: what they are worth now, and moving those that this site may move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{self, Authority, ChannelName, ChannelState, Flaw, Known, Position, is_delegation};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Channel, DelegatedRole, RevocationSubject};
use rialto_protocol::signed::Draft;
use rialto_web::api::{ApiError, Recorded, SetChannelRequest};

use super::Node;
use super::work::blocking;
use crate::catalog::SharedRecord;
use crate::keys;
use crate::signing::Signer;
use crate::trust::{FloorError, Place, Signed, Standby, revocation_is_by};

/// How long a head lasts where nobody says: a site that was away for a weekend still finds it fresh.
pub(crate) const DEFAULT_LIFETIME_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Nothing that is signed here lasts longer: ten years. What expires later than anyone remembers does not expire.
const MAX_LIFETIME_SECONDS: u64 = 10 * 366 * 24 * 60 * 60;

/// A channel as this site sees it now.
pub(crate) struct Seen {
    /// Its heads, at most three.
    pub(crate) heads: Vec<SharedRecord>,
    /// Who may move it.
    pub(crate) authority: Authority,
    /// What it is worth.
    pub(crate) state: ChannelState,
}

/// Why a channel is not signed again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Renewal {
    /// It is.
    Done,
    /// Somebody else has moved it: it is theirs from now on.
    Over(String),
    /// It cannot be, now.
    Stuck(String),
}

impl Node {
    /// What a channel is worth now, by all that is known here. Quick: look-ups and a pure function.
    pub(crate) fn channel(&self, channel: &ChannelName) -> Seen {
        let heads = self.catalog.heads(channel);
        let delegations = self.catalog.delegations(&channel.publisher, &channel.name);
        let floor = self.floors.floor(channel);
        let known = Known { channel, heads: &heads, delegations: &delegations, floor };
        let state = channel::state(&known, |key| self.is_revoked_for(key, &channel.publisher), self.now());
        let role = DelegatedRole::Channel;
        let authority = channel::authority(&channel.publisher, role, &channel.name, &delegations, floor.delegation);
        Seen { heads, authority, state }
    }

    /// Whether a key acts for this publisher no more: by its own word, or by that of the publisher, who lent it what it did.
    pub(super) fn is_revoked_for(&self, key: &PublicKey, publisher: &PublicKey) -> bool {
        let policy = self.policy.borrow().policy.clone();
        let said = self.catalog.revocations_of(&RevocationSubject::Key(*key));
        let is_by = |revocation: &SharedRecord, key| revocation_is_by(policy.as_deref(), revocation, key);
        said.iter().any(|revocation| is_by(revocation, key) || is_by(revocation, publisher))
    }

    /// Raises the floors to what is known of these publishers. Blocks on the disk where something is higher.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn raise_floors(&self, publishers: impl IntoIterator<Item = PublicKey>) -> Result<(), FloorError> {
        for publisher in publishers {
            let delegations = self.catalog.delegations_by(&publisher);
            let highest = self.catalog.channels_by(&publisher).into_iter().filter_map(|channel| {
                let heads = self.catalog.heads(&channel);
                Some((channel, heads.iter().filter_map(position).max()?))
            });
            self.floors.raise(highest, delegations.iter().filter_map(|record| is_delegation(record)))?;
        }
        Ok(())
    }

    /// The same for publishers that policy names, of all of them or of those of whom something came since.
    pub(super) async fn raise_floors_in_background(self: &Arc<Self>, all: bool) {
        let node = Arc::clone(self);
        let raised = tokio::task::spawn_blocking(move || {
            let moved = node.catalog.moved();
            let named = node.named.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            node.raise_floors(named.into_iter().filter(|key| all || moved.contains(key)))
        });
        if let Ok(Err(error)) = raised.await {
            tracing::error!(%error, "what was seen cannot be noted");
        }
    }

    /// Makes a channel point at a release.
    pub(crate) async fn set_channel(self: &Arc<Self>, request: SetChannelRequest) -> Result<Recorded, ApiError> {
        let record = self.release_called(&request.release).await?;
        let (node, appliance) = (Arc::clone(self), request.appliance.clone());
        let named = blocking(move || node.appliance_called(&appliance)).await??;
        let Some(release) = record.body.release() else {
            return Err(ApiError::not_found(format!("{} is not a release", record.id)));
        };
        if !named.0.contains(&release.publisher) || named.1 != release.name {
            return Err(ApiError::usage(format!(
                "{} is a release of {}/{}, not of {}",
                record.id,
                self.shown(&release.publisher),
                release.name,
                request.appliance
            )));
        }
        let channel = request.channel.parse().map_err(|error| ApiError::usage(format!("{error}")))?;
        let channel = ChannelName { publisher: release.publisher, name: release.name.clone(), channel };
        let signers = self.signers(&request.keys).await?;
        let lifetime = lifetime(request.expires_after_seconds, DEFAULT_LIFETIME_SECONDS)?;
        let _signing = self.signing.lock().await;
        let standby = if request.propose { Standby::Proposes } else { Standby::No };
        Ok(Recorded { record: self.sign_head(channel, record.id, signers, lifetime, standby).await? })
    }

    /// Signs a head with the next number, once that is written down. The caller holds `signing`. Where all the keys are
    /// this node's own, it signs the channel again from now on. One that is proposed may lack signatures of others, who add
    /// theirs when it reaches them.
    pub(super) async fn sign_head(
        self: &Arc<Self>,
        channel: ChannelName,
        release: RecordId,
        signers: Vec<Signer>,
        lifetime_seconds: u64,
        standby: Standby,
    ) -> Result<RecordId, ApiError> {
        let now = self.sound_now()?;
        let title = self.channel_title(&channel);
        let own = self.catalog.revocations_of(&RevocationSubject::Release(release));
        if own.iter().any(|revocation| revocation.is_signed_by(&channel.publisher)) {
            return Err(ApiError::failed(format!("{title} cannot point at {release}: its publisher has revoked it")));
        }
        let names: Option<Vec<Name>> = signers.iter().map(|signer| signer.name().cloned()).collect();
        let names = names.unwrap_or_default();
        let signers: BTreeMap<PublicKey, Signer> =
            signers.into_iter().map(|signer| (signer.public(), signer)).collect();
        let seen = self.channel(&channel);
        let epoch = self.may_sign(&title, &seen.authority, &channel, &signers, now, standby)?;
        let issuers: BTreeSet<PublicKey> = match (&seen.authority, standby) {
            (Authority::Delegated { keys, .. }, Standby::Proposes) => {
                keys.iter().chain(signers.keys()).copied().collect()
            }
            _ => signers.keys().copied().collect(),
        };
        if let Some(flaw) =
            seen.state.flaws.iter().find(|flaw| matches!(flaw, Flaw::Contradicted { at, .. } if at.epoch == epoch))
        {
            return Err(ApiError::failed(format!("{title}: {flaw}")).with_hint(
                "begin a new epoch: rialto delegate KEY --key PUBLISHER'S-KEY, with a key that nobody else has",
            ));
        }
        let sequence = self.next_sequence(&channel, &seen, epoch, now).ok_or_else(|| {
            ApiError::failed(format!("no number is left for a head of {title}: somebody signed the last one"))
                .with_hint("begin a new epoch with other keys: rialto delegate KEY --key PUBLISHER'S-KEY --names NAME")
        })?;
        let position = Position { epoch, sequence };
        let place = Place::new(channel.clone(), position);
        let before = self.floors.signed(&channel);
        let signing =
            Signed { place: place.clone(), release, keys: names, lifetime_seconds, at: now, standby, record: None };
        self.note_signed(signing).await?;
        let publisher = channel.publisher;
        let body = Body::Channel(Channel {
            publisher,
            name: channel.name,
            channel: channel.channel,
            epoch,
            sequence,
            release,
            expires: now.saturating_add(lifetime_seconds),
        });
        let signed = self.sign_with(issuers, &signers, &body, now).await;
        if let (Err(_), Some(before)) = (&signed, before) {
            // A key elsewhere did not sign: the number is spent, and the channel stays what it was, signed again as before.
            self.note_signed(Signed { place, ..before }).await?;
        }
        self.head_signed.notify_one();
        let id = signed?;
        let node = Arc::clone(self);
        blocking(move || node.raise_floors([publisher])).await?.map_err(|error| ApiError::failed(error.to_string()))?;
        Ok(id)
    }

    pub(super) async fn sign_with(
        &self,
        issuers: impl IntoIterator<Item = PublicKey>,
        signers: &BTreeMap<PublicKey, Signer>,
        body: &Body,
        now: UnixSeconds,
    ) -> Result<RecordId, ApiError> {
        let draft = Draft::new(issuers, Some(self.config.federation.clone()), now, body);
        self.announce(self.desk.sign(draft.map_err(unsignable)?, signers.values()).await?).await
    }

    pub(super) async fn note_signed(&self, signed: Signed) -> Result<(), ApiError> {
        let floors = self.floors.clone();
        blocking(move || floors.sign(signed)).await?.map_err(|error| ApiError::failed(error.to_string()))
    }

    /// The epoch in which these keys may move a channel now.
    fn may_sign(
        &self,
        title: &str,
        authority: &Authority,
        channel: &ChannelName,
        signers: &BTreeMap<PublicKey, Signer>,
        now: UnixSeconds,
        standby: Standby,
    ) -> Result<u64, ApiError> {
        let refused = |why: String| ApiError::failed(format!("{title} is not moved: {why}"));
        match authority {
            Authority::Publisher if signers.contains_key(&channel.publisher) => Ok(0),
            Authority::Publisher => Err(refused(format!(
                "none of the keys is its publisher's ({}), which has delegated to nobody that is known here",
                self.shown(&channel.publisher)
            ))
            .with_hint(format!(
                "sign with the publisher's key, or let another one act for it: rialto delegate KEY --key PUBLISHER'S-KEY --names {}",
                channel.name
            ))),
            Authority::Delegated { expires, record, .. } if *expires <= now => {
                Err(refused(format!("the delegation of the keys that may (record {record}) has expired"))
                    .with_hint("renew it with the publisher's key: rialto delegate KEY --key PUBLISHER'S-KEY"))
            }
            Authority::Delegated { keys, threshold, sequence, record, .. } => {
                let good = signers.keys().filter(|key| keys.contains(key)).count();
                match good >= *threshold {
                    true => Ok(*sequence),
                    false if standby == Standby::Proposes && good > 0 => Ok(*sequence),
                    false => {
                        let keys: Vec<String> = keys.iter().map(|key| self.key_shown(key)).collect();
                        Err(refused(format!(
                            "{threshold} of {} must sign, says its publisher (record {record})",
                            keys.join(", ")
                        ))
                        .with_hint(match good {
                            0 => "give each key with --key, or delegate to others",
                            _ => "give each key with --key; or sign with those that are here and let other sites add theirs: --propose",
                        }))
                    }
                }
            }
            Authority::Contradicted { sequence, one, other } => Err(refused(format!(
                "its publisher signed two delegations {sequence} that differ (records {one} and {other})"
            ))
            .with_hint("sign a later one with the publisher's key: rialto delegate KEY --key PUBLISHER'S-KEY")),
            Authority::Missing { seen } => Err(refused(format!(
                "delegation {seen} of its publisher was seen before, and is not known here any more"
            ))
            .with_hint("wait until another site brings it, or delegate again")),
        }
    }

    /// A number above all that is known, and not below the time: a node that was restored from a backup does not sign
    /// what it has signed before and forgotten.
    fn next_sequence(&self, channel: &ChannelName, seen: &Seen, epoch: u64, now: UnixSeconds) -> Option<u64> {
        let heads = seen.heads.iter().filter_map(position);
        let floor = self.floors.floor(channel).head;
        let signed = self.floors.signed(channel).map(|signed| signed.place.position());
        let known = heads.chain(floor).chain(signed).filter(|at| at.epoch == epoch).map(|at| at.sequence).max();
        let mut next = match known {
            Some(known) => known.checked_add(1)?.max(now),
            None => now.max(1),
        };
        // Not one that another head waits with: signed by enough, the two would contradict each other.
        let waiting = self.pending(channel).into_iter().map(|head| head.position);
        let taken: BTreeSet<u64> = waiting.filter(|at| at.epoch == epoch).map(|at| at.sequence).collect();
        while taken.contains(&next) {
            next = next.checked_add(1)?;
        }
        Some(next)
    }

    /// The time to sign at.
    pub(super) fn sound_now(&self) -> Result<UnixSeconds, ApiError> {
        let reading = self.clock();
        match reading.doubt {
            None => Ok(reading.now),
            Some(doubt) => Err(ApiError::failed(format!("nothing is signed by this clock: {doubt}"))),
        }
    }

    /// A channel as this site calls it.
    pub(crate) fn channel_title(&self, channel: &ChannelName) -> String {
        format!("{}/{}:{}", self.shown(&channel.publisher), channel.name, channel.channel)
    }

    /// A key as this site calls it: a signer of its policy, a key of its own, or the fingerprint.
    pub(crate) fn key_shown(&self, key: &PublicKey) -> String {
        let own = || {
            let own = self.keys.list().unwrap_or_default().into_iter();
            own.into_iter().find(|listed| listed.public_key.as_ref() == Ok(key)).map(|listed| listed.name.to_string())
        };
        self.petname(key).or_else(own).unwrap_or_else(|| key.fingerprint())
    }

    /// The keys that a publisher may be: those of a signer of the policy, a key of this node, or whose fingerprint or
    /// text this is.
    pub(crate) fn publishers_called(&self, publisher: &str) -> Vec<PublicKey> {
        let state = self.policy.borrow().clone();
        if let Some(keys) = state.policy.as_ref().and_then(|policy| policy.keys(publisher)) {
            return keys.to_vec();
        }
        if let Ok(key) = publisher.parse::<PublicKey>() {
            return vec![key];
        }
        if publisher.starts_with('~') {
            let known: BTreeSet<PublicKey> = self.catalog.publishers().into_iter().collect();
            return known.into_iter().filter(|key| key.fingerprint() == publisher).collect();
        }
        let own = Name::try_from(publisher).ok().and_then(|name| self.keys.public(&name).ok());
        own.into_iter().collect()
    }

    /// `PUBLISHER/NAME`: the keys that the publisher may be, and the appliance's name.
    pub(crate) fn appliance_called(&self, appliance: &str) -> Result<(Vec<PublicKey>, Name), ApiError> {
        let shown: String = appliance.chars().take(80).collect();
        let parts =
            appliance.split_once('/').and_then(|(publisher, name)| Some((publisher, Name::try_from(name).ok()?)));
        let Some((publisher, name)) = parts else {
            return Err(ApiError::usage(format!("'{shown}' does not name an appliance"))
                .with_hint("give PUBLISHER/NAME: the publisher as rialto search shows it"));
        };
        let keys = self.publishers_called(publisher);
        match keys.is_empty() {
            false => Ok((keys, name)),
            true => Err(ApiError::not_found(format!(
                "no publisher is called '{}' here",
                &shown[..shown.find('/').unwrap_or(0)]
            ))
            .with_hint("name it in [signers] of policy.toml, or give its fingerprint (~…) as rialto search shows it")),
        }
    }

    /// The channels of publishers that policy names and of this node's own keys; or those of one appliance.
    ///
    /// # Errors
    /// The appliance is not known.
    pub(crate) fn channels_known(&self, appliance: Option<&str>) -> Result<Vec<ChannelName>, ApiError> {
        if let Some(appliance) = appliance {
            let (keys, name) = self.appliance_called(appliance)?;
            let mut channels: BTreeSet<ChannelName> =
                keys.iter().flat_map(|key| self.catalog.channels_of(key, &name)).collect();
            let waiting = self.catalog.channels_that_wait().into_iter();
            channels.extend(waiting.filter(|of| keys.contains(&of.publisher) && of.name == name));
            return Ok(channels.into_iter().collect());
        }
        let named = self.named_keys();
        let mut channels: BTreeSet<ChannelName> = named.iter().flat_map(|key| self.catalog.channels_by(key)).collect();
        channels.extend(self.catalog.channels_that_wait().into_iter().filter(|of| named.contains(&of.publisher)));
        Ok(channels.into_iter().collect())
    }

    /// The channel that `PUBLISHER/NAME:CHANNEL` means. One look-up for each key that the publisher may be.
    ///
    /// # Errors
    /// `usage` for what names no channel, `not-found` for one that has no head here, or more than one publisher's.
    pub(crate) fn channel_called(&self, reference: &str) -> Result<ChannelName, ApiError> {
        let shown: String = reference.chars().take(80).collect();
        let parts = reference.rsplit_once(':').and_then(|(of, channel)| Some((of, Name::try_from(channel).ok()?)));
        let Some((appliance, channel)) = parts else {
            return Err(
                ApiError::usage(format!("'{shown}' does not name a channel")).with_hint("give PUBLISHER/NAME:CHANNEL")
            );
        };
        let (keys, name) = self.appliance_called(appliance)?;
        let named = keys.iter().map(|publisher| ChannelName {
            publisher: *publisher,
            name: name.clone(),
            channel: channel.clone(),
        });
        let mut found: Vec<ChannelName> = named
            .filter(|channel| {
                !self.catalog.heads(channel).is_empty()
                    || self.floors.floor(channel).head.is_some()
                    || !self.catalog.waiting_heads(channel).is_empty()
            })
            .collect();
        // A signer that has moved to another key: the one that still says something.
        if found.len() > 1 {
            found.retain(|channel| self.channel(channel).state.flaws.is_empty());
        }
        match found.len() {
            1 => Ok(found.swap_remove(0)),
            0 => Err(ApiError::not_found(format!("there is no channel {shown} here"))
                .with_hint("list what there is with: rialto channel ls")),
            _ => Err(ApiError::not_found(format!("{shown} is a channel of several keys of one signer"))
                .with_hint("name the publisher by its fingerprint (~…)")),
        }
    }

    /// The keys that sign, each once.
    pub(super) async fn signers<T: std::ops::Deref<Target = str>>(&self, keys: &[T]) -> Result<Vec<Signer>, ApiError> {
        let mut signers = BTreeMap::new();
        for key in keys {
            let signer = self.signer(key).await?;
            signers.insert(signer.public(), signer);
        }
        match signers.is_empty() {
            true => Err(ApiError::usage("a head is signed with at least one key")),
            false => Ok(signers.into_values().collect()),
        }
    }

    pub(super) async fn key_called(&self, key: &str) -> Result<PublicKey, ApiError> {
        if key.starts_with("ssh-") {
            return keys::from_openssh(key).map_err(|error| ApiError::usage(error.to_string()));
        }
        if let Ok(key) = key.parse::<PublicKey>() {
            return Ok(key);
        }
        let name: Name = key.parse().map_err(|error| ApiError::usage(format!("{error}")))?;
        let keys = self.keys.clone();
        Ok(blocking(move || keys.public(&name)).await??)
    }
}

/// Where a head stands.
pub(super) fn position(head: &SharedRecord) -> Option<Position> {
    head.body.channel().map(|head| Position { epoch: head.epoch, sequence: head.sequence })
}

fn unsignable(error: rialto_protocol::signed::EnvelopeError) -> ApiError {
    ApiError::usage(error.to_string())
}

pub(super) fn lifetime(seconds: Option<u64>, otherwise: u64) -> Result<u64, ApiError> {
    match seconds.unwrap_or(otherwise) {
        0 => Err(ApiError::usage("what lasts for no time is not worth signing")),
        seconds if seconds > MAX_LIFETIME_SECONDS => {
            Err(ApiError::usage(format!("{seconds} s is too long: at most ten years are signed")))
        }
        seconds => Ok(seconds),
    }
}
