//! Delegations of this site's publishers: which keys act for them, and what is signed again by those that do now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::bounded::{Name, NamePattern};
use rialto_protocol::channel::{Authority, is_delegation};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, DelegatedRole, Delegation};
use rialto_web::api::{ApiError, DelegateRequest, Delegated, RotateRequest};

use super::Node;
use super::channels::{Renewal, lifetime};
use super::work::blocking;
use crate::catalog::SharedRecord;
use crate::signing::Signer;
use crate::trust::Standby;

/// How long a delegation lasts where nobody says.
const DEFAULT_DELEGATION_SECONDS: u64 = 90 * 24 * 60 * 60;

impl Node {
    /// Lets keys move the channels of a publisher, and signs those channels of its that this node keeps fresh again.
    pub(crate) async fn delegate(self: &Arc<Self>, request: DelegateRequest) -> Result<Delegated, ApiError> {
        let root = self.signer(&request.key).await?;
        let mut to = BTreeSet::new();
        for key in &request.to {
            to.insert(self.key_called(key).await?);
        }
        let names = patterns(&request.names)?;
        let lifetime = lifetime(request.expires_after_seconds, DEFAULT_DELEGATION_SECONDS)?;
        let _signing = self.signing.lock().await;
        let record = self.sign_delegation(&root, to, request.threshold.unwrap_or(1), names, lifetime).await?;
        let channels = self.sign_again(&root.public()).await;
        Ok(Delegated { record, records: vec![record], channels })
    }

    /// Puts a new key in the place of an old one wherever the publisher's key lets the old one act.
    pub(crate) async fn rotate(self: &Arc<Self>, request: RotateRequest) -> Result<Delegated, ApiError> {
        let old = self.key_called(&request.old).await?;
        let new = self.key_called(&request.new).await?;
        let root_name = request.key.as_deref().unwrap_or(&request.old);
        let root = self.signer(root_name).await?;
        let publisher = root.public();
        let _signing = self.signing.lock().await;
        let now = self.sound_now()?;
        let mut in_force: BTreeMap<Vec<NamePattern>, SharedRecord> = BTreeMap::new();
        for record in self.catalog.delegations_by(&publisher) {
            if let Some(delegation) = is_delegation(&record).filter(|of| of.role() == DelegatedRole::Channel) {
                // The highest come first.
                in_force.entry(delegation.names().to_vec()).or_insert(record);
            }
        }
        let mut of_old: Vec<(u64, Delegation, u64)> = in_force
            .values()
            .filter_map(|record| {
                let delegation = is_delegation(record).filter(|of| of.keys().contains(&old))?;
                let lasts = delegation.expires().saturating_sub(record.header.issued);
                Some((delegation.sequence(), delegation.clone(), lasts))
            })
            .collect();
        // One that is for more names than another comes after it again, as before.
        of_old.sort_by_key(|(sequence, ..)| *sequence);
        let mut records = Vec::new();
        for (_, delegation, lasts) in of_old {
            let keys = delegation.keys().iter().map(|key| if *key == old { new } else { *key }).collect();
            let lasts = request.expires_after_seconds.unwrap_or(lasts.max(1));
            let (threshold, names) = (delegation.threshold() as u32, delegation.names().to_vec());
            records.push(self.sign_delegation(&root, keys, threshold, names, lifetime(Some(lasts), 1)?).await?);
        }
        if records.is_empty() && old == publisher {
            let lasts = lifetime(request.expires_after_seconds, DEFAULT_DELEGATION_SECONDS)?;
            let everything = patterns(&["*".to_owned()])?;
            records.push(self.sign_delegation(&root, [new].into(), 1, everything, lasts).await?);
        }
        let Some(&record) = records.last() else {
            return Err(ApiError::not_found(format!(
                "key {} lets {} do nothing, as far as is known here (at {now})",
                self.key_shown(&publisher),
                self.key_shown(&old)
            ))
            .with_hint(format!("let the new key act: rialto delegate {} --key KEY --names '*'", request.new)));
        };
        let channels = self.sign_again(&publisher).await;
        Ok(Delegated { record, records, channels })
    }

    async fn sign_delegation(
        &self,
        root: &Signer,
        keys: BTreeSet<PublicKey>,
        threshold: u32,
        names: Vec<NamePattern>,
        lifetime_seconds: u64,
    ) -> Result<RecordId, ApiError> {
        let now = self.sound_now()?;
        let publisher = root.public();
        let known = self.catalog.delegations_by(&publisher);
        let known = known.iter().filter_map(|record| is_delegation(record)).map(Delegation::sequence).max();
        let next = known.max(self.floors.highest_delegation(&publisher)).unwrap_or(0).checked_add(1);
        let sequence = next.map(|next| next.max(now)).ok_or_else(|| {
            ApiError::failed("no number is left for a delegation by this key: somebody signed the last one")
                .with_hint("revoke the key, and publish with another one")
        })?;
        let role = DelegatedRole::Channel;
        let expires = now.saturating_add(lifetime_seconds);
        let delegation = Delegation::new(publisher, role, keys, threshold, names, sequence, expires)
            .map_err(|error| ApiError::usage(error.to_string()))?;
        let signers = BTreeMap::from([(publisher, root.clone())]);
        let id = self.sign_with([publisher], &signers, &Body::Delegation(delegation.clone()), now).await?;
        let floors = self.floors.clone();
        let raised = blocking(move || floors.raise([], [&delegation])).await?;
        raised.map_err(|error| ApiError::failed(error.to_string()))?;
        Ok(id)
    }

    /// Signs a publisher's channels that this node keeps fresh with whichever of its keys may now, where the ones that
    /// signed last may no more. What cannot be signed is said in the log and by `status`.
    async fn sign_again(self: &Arc<Self>, publisher: &PublicKey) -> Vec<RecordId> {
        let mut records = Vec::new();
        for signed in self.floors.all_signed() {
            let channel = signed.place.channel();
            let is_renewed = !signed.keys.is_empty() && signed.standby != Standby::Cosigns;
            if channel.publisher != *publisher || !is_renewed {
                continue;
            }
            let Authority::Delegated { keys, threshold, sequence, .. } = self.channel(&channel).authority else {
                continue;
            };
            if signed.place.position().epoch == sequence {
                continue;
            }
            let local = self.keys.list().unwrap_or_default().into_iter();
            let local =
                local.filter(|key| key.is_usable && key.public_key.as_ref().is_ok_and(|key| keys.contains(key)));
            let names: Vec<Name> = local.map(|key| key.name).take(threshold).collect();
            let signed = match self.signers(&names).await {
                Ok(signers) => {
                    let lifetime = signed.lifetime_seconds;
                    self.sign_head(channel.clone(), signed.release, signers, lifetime, signed.standby).await
                }
                Err(error) => Err(error),
            };
            match signed {
                Ok(record) => records.push(record),
                Err(error) => self.note_renewal(&channel, &Renewal::Stuck(error.message)),
            }
        }
        records
    }
}

fn patterns(names: &[String]) -> Result<Vec<NamePattern>, ApiError> {
    let parsed: Result<Vec<NamePattern>, _> = names.iter().map(|name| NamePattern::try_from(name.as_str())).collect();
    parsed.map_err(|error| ApiError::usage(error.to_string()))
}
