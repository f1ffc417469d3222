//! Heads that need the keys of more than one site: proposed by one, signed by the others, and again at each renewal where they
//! have said once that they will.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::channel::{ChannelName, Known, Pending, pending};
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Record, RevocationSubject};
use rialto_protocol::signed::{Draft, Verified};
use rialto_web::api::{ApiError, CosignRequest, Cosigned};

use super::Node;
use super::channels::Renewal;
use super::work::blocking;
use crate::catalog::SharedRecord;
use crate::signing::Signer;
use crate::trust::{Place, Signed, Standby};

/// How often it is looked at most whether a renewal waits for a signature of this node.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(500);

impl Node {
    /// The heads of a channel that wait for signatures. Quick: look-ups and a pure function.
    pub(crate) fn pending(&self, channel: &ChannelName) -> Vec<Pending> {
        let heads: Vec<SharedRecord> =
            self.catalog.heads(channel).into_iter().chain(self.catalog.waiting_heads(channel)).collect();
        let delegations = self.catalog.delegations(&channel.publisher, &channel.name);
        let floor = self.floors.floor(channel);
        let known = Known { channel, heads: &heads, delegations: &delegations, floor };
        pending(&known, |key| self.is_revoked_for(key, &channel.publisher), self.now())
    }

    /// Adds this site's signatures to a head that waits for them.
    ///
    /// # Errors
    /// `not-found` where none waits; a key that may not sign it, or has; what speaks against the head; those of signing.
    pub(crate) async fn cosign(self: &Arc<Self>, request: CosignRequest) -> Result<Cosigned, ApiError> {
        let (node, called) = (Arc::clone(self), request.channel.clone());
        let channel = blocking(move || node.channel_called(&called)).await??;
        let title = self.channel_title(&channel);
        let Some(record) = request.record else {
            return self.stop_cosigning(&channel, &title, &request).await;
        };
        let signers = self.signers(&request.keys).await?;
        let standby = match request.renewals {
            true if signers.iter().any(|signer| signer.name().is_none()) => {
                return Err(ApiError::usage("renewals are signed by keys that lie open in this node only")
                    .with_hint("leave out --renewals, and sign each of them; or use a key made with: rialto key new"));
            }
            true => Standby::Cosigns,
            false => Standby::No,
        };
        let _signing = self.signing.lock().await;
        let waiting = self.pending(&channel);
        let Some(head) = waiting.into_iter().find(|head| head.record == record) else {
            return Err(ApiError::not_found(format!("{title}: no head {record} waits for signatures here"))
                .with_hint(format!("see what does: rialto channel show {title}")));
        };
        let lifetime_seconds = head.expires.saturating_sub(head.issued);
        let consent = Consent { standby, lifetime_seconds };
        self.add_signatures(&channel, &head, signers, consent).await
    }

    /// Takes the consent back to sign renewals.
    async fn stop_cosigning(
        &self,
        channel: &ChannelName,
        title: &str,
        request: &CosignRequest,
    ) -> Result<Cosigned, ApiError> {
        if request.renewals || !request.keys.is_empty() {
            return Err(ApiError::usage("name the record of the head that is to be signed")
                .with_hint(format!("see what waits: rialto channel show {title}")));
        }
        let _signing = self.signing.lock().await;
        match self.floors.signed(channel) {
            Some(signed) if signed.standby == Standby::Cosigns => {
                self.note_signed(Signed { standby: Standby::No, keys: Vec::new(), ..signed }).await?;
                Ok(Cosigned { record: None, signed: 0, threshold: 0 })
            }
            _ => Err(ApiError::not_found(format!("this node signs no renewals of {title} with others"))),
        }
    }

    /// Signs a head with others, once that is written down: never two that would contradict each other. The caller holds
    /// `signing`.
    async fn add_signatures(
        self: &Arc<Self>,
        channel: &ChannelName,
        head: &Pending,
        signers: Vec<Signer>,
        consent: Consent,
    ) -> Result<Cosigned, ApiError> {
        let now = self.sound_now()?;
        let title = self.channel_title(channel);
        let refused = |why: String| ApiError::failed(format!("head {} of {title} is not signed: {why}", head.record));
        if let Some(flaw) = &head.flaw {
            return Err(refused(flaw.to_string()));
        }
        let signers: BTreeMap<PublicKey, Signer> =
            signers.into_iter().map(|signer| (signer.public(), signer)).collect();
        if let Some(key) = signers.keys().find(|key| !head.wanted.contains(key)) {
            let shown = self.key_shown(key);
            return Err(refused(match head.signed.contains(key) {
                true => format!("{shown} has signed it already"),
                false => format!("it is not for {shown} to sign"),
            })
            .with_hint("rialto channel show says who may move the channel, and who has signed"));
        }
        let own = self.catalog.revocations_of(&RevocationSubject::Release(head.release));
        if own.iter().any(|revocation| revocation.is_signed_by(&channel.publisher)) {
            return Err(refused(format!("its publisher has revoked release {}", head.release)));
        }
        let before = self.floors.signed(channel);
        if let Some(signed) = &before {
            let at = signed.place.position();
            if at > head.position || (at == head.position && signed.record != Some(head.record)) {
                return Err(refused(format!("this node has signed another head with the number {at}")).with_hint(
                    "that one waits, or counts, instead; or propose a later one with: rialto channel set --propose",
                ));
            }
        }
        let known = self.catalog.get(&head.record).ok_or_else(|| refused("it is not known here any more".into()))?;
        let names = match consent.standby {
            Standby::No => Vec::new(),
            _ => signers.values().filter_map(|signer| signer.name().cloned()).collect(),
        };
        let signed = Signed {
            place: Place::new(channel.clone(), head.position),
            release: head.release,
            keys: names,
            lifetime_seconds: consent.lifetime_seconds,
            at: now,
            standby: consent.standby,
            record: Some(head.record),
        };
        self.note_signed(signed.clone()).await?;
        let merged = self.merged(&known, signers.values()).await;
        if merged.is_err()
            && let Some(before) = before
        {
            // Nothing was signed: renewals go on as before, from this number on.
            self.note_signed(Signed { place: signed.place, record: signed.record, ..before }).await?;
        }
        let merged = merged?;
        let count = head.signed.len() + signers.len();
        self.announce(merged.envelope().clone()).await?;
        self.head_signed.notify_one();
        let (node, publisher) = (Arc::clone(self), channel.publisher);
        blocking(move || node.raise_floors([publisher])).await?.map_err(|error| ApiError::failed(error.to_string()))?;
        Ok(Cosigned { record: Some(head.record), signed: count as u64, threshold: head.threshold as u64 })
    }

    /// The head with these signatures beside those that it has.
    async fn merged(
        &self,
        head: &SharedRecord,
        signers: impl Iterator<Item = &Signer>,
    ) -> Result<Verified<Record>, ApiError> {
        let failed = |error: rialto_protocol::signed::EnvelopeError| ApiError::failed(error.to_string());
        let payload = head.envelope().payload().to_vec();
        let draft = Draft::from_payload(payload, head.header.issuers.clone()).map_err(failed)?;
        let ours = self.desk.sign(draft, signers).await?.verify().map_err(failed)?;
        let merged = head.merge(&ours).map_err(failed)?;
        merged.ok_or_else(|| ApiError::failed(format!("head {} has these signatures already", head.id)))
    }

    /// Signs renewals with others where this node said that it will, until it is cancelled.
    pub(super) async fn cosign_renewals(self: Arc<Self>) {
        let mut records = self.catalog.changes();
        loop {
            for signed in self.floors.all_signed() {
                if signed.standby == Standby::Cosigns && !signed.keys.is_empty() {
                    self.cosign_renewal(signed).await;
                }
            }
            if records.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(LOOK_AT_MOST_EVERY).await;
            records.borrow_and_update();
        }
    }

    /// Signs the highest renewal of what this node has signed last, where one waits: the same release, for no longer.
    async fn cosign_renewal(self: &Arc<Self>, signed: Signed) {
        let channel = signed.place.channel();
        let _signing = self.signing.lock().await;
        if self.floors.signed(&channel).as_ref() != Some(&signed) || self.clock().doubt.is_some() {
            return;
        }
        let last_for = self.now().saturating_add(signed.lifetime_seconds);
        let is_renewal = |head: &Pending| {
            head.flaw.is_none()
                && head.release == signed.release
                && head.expires <= last_for
                && head.position > signed.place.position()
        };
        let Some(head) = self.pending(&channel).into_iter().find(is_renewal) else { return };
        let signers = match self.signers(&signed.keys).await {
            Ok(signers) => signers.into_iter().filter(|signer| head.wanted.contains(&signer.public())).collect(),
            Err(error) => return self.note_renewal(&channel, &Renewal::Stuck(error.message)),
        };
        let signers: Vec<Signer> = signers;
        if signers.is_empty() {
            return;
        }
        let consent = Consent { standby: Standby::Cosigns, lifetime_seconds: signed.lifetime_seconds };
        // All of them stay, also one that has signed this head elsewhere.
        let done = self.add_signatures(&channel, &head, signers, consent).await;
        if let (Ok(_), Some(now)) = (&done, self.floors.signed(&channel))
            && now.keys != signed.keys
            && let Err(error) = self.note_signed(Signed { keys: signed.keys, ..now }).await
        {
            tracing::error!(message = error.message, "the keys that sign renewals cannot be noted");
        }
        match done {
            Ok(_) => self.note_renewal(&channel, &Renewal::Done),
            Err(error) => self.note_renewal(&channel, &Renewal::Stuck(error.message)),
        }
    }

    /// Channels of which a head waits for keys of this node, or that it proposed itself, and how many signatures it has.
    pub(crate) fn waiting_channels(&self) -> Vec<(ChannelName, Pending)> {
        let own = self.keys.list().unwrap_or_default().into_iter().filter_map(|listed| listed.public_key.ok());
        let own: BTreeSet<PublicKey> = own.collect();
        let is_ours = |head: &Pending| head.wanted.iter().chain(&head.signed).any(|key| own.contains(key));
        let first = |channel: ChannelName| {
            let head = self.pending(&channel).into_iter().find(|head| head.flaw.is_none() && is_ours(head))?;
            Some((channel, head))
        };
        self.catalog.channels_that_wait_for(&own).into_iter().filter_map(first).collect()
    }
}

/// What is noted of a head that is signed with others.
#[derive(Debug, Clone, Copy)]
struct Consent {
    standby: Standby,
    lifetime_seconds: u64,
}
