//! Delegations of this site's publishers: which keys act for them, and what is signed again by those that do now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use rialto_protocol::bounded::{Name, NamePattern};
use rialto_protocol::channel::{Authority, authority, is_delegation};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, DelegatedRole, Delegation};
use rialto_web::api::{ApiError, DelegateRequest, Delegated, PublishRequest, RotateRequest};

use super::Node;
use super::channels::{Renewal, lifetime};
use super::work::blocking;
use crate::catalog::SharedRecord;
use crate::publish::Description;
use crate::signing::Signer;
use crate::trust::Standby;

/// How long a delegation lasts where nobody says.
const DEFAULT_DELEGATION_SECONDS: u64 = 90 * 24 * 60 * 60;

impl Node {
    /// Lets keys sign releases or move channels of a publisher, and signs those channels of its that this node keeps fresh again.
    pub(crate) async fn delegate(self: &Arc<Self>, request: DelegateRequest) -> Result<Delegated, ApiError> {
        let root = self.signer(&request.key).await?;
        let mut to = BTreeSet::new();
        for key in &request.to {
            to.insert(self.key_called(key).await?);
        }
        let names = patterns(&request.names)?;
        let lifetime = lifetime(request.expires_after_seconds, DEFAULT_DELEGATION_SECONDS)?;
        let _signing = self.signing.lock().await;
        let role = request.role;
        let record = self.sign_delegation(&root, role, to, request.threshold.unwrap_or(1), names, lifetime).await?;
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
        let mut in_force: BTreeMap<(DelegatedRole, Vec<NamePattern>), SharedRecord> = BTreeMap::new();
        for record in self.catalog.delegations_by(&publisher) {
            if let Some(delegation) = is_delegation(&record) {
                // The highest come first.
                in_force.entry((delegation.role(), delegation.names().to_vec())).or_insert(record);
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
            let lasts = lifetime(Some(lasts), 1)?;
            records.push(self.sign_delegation(&root, delegation.role(), keys, threshold, names, lasts).await?);
        }
        if records.is_empty() && old == publisher {
            let lasts = lifetime(request.expires_after_seconds, DEFAULT_DELEGATION_SECONDS)?;
            let everything = patterns(&["*".to_owned()])?;
            let role = DelegatedRole::Channel;
            records.push(self.sign_delegation(&root, role, [new].into(), 1, everything, lasts).await?);
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

    /// Whose release is published, the keys that may sign it, and those that do: the publisher's own, or enough of those that it
    /// lent its releases to.
    ///
    /// # Errors
    /// There is no such publisher, or the keys may not sign for it.
    pub(super) async fn release_signers(
        &self,
        request: &PublishRequest,
    ) -> Result<(PublicKey, BTreeSet<PublicKey>, Vec<Signer>), ApiError> {
        let names: Vec<&str> = [&request.key].into_iter().chain(&request.with_keys).map(String::as_str).collect();
        let signers = self.signers(&names).await?;
        let keys: BTreeSet<PublicKey> = signers.iter().map(Signer::public).collect();
        let Some(called) = &request.publisher else {
            return match (keys.first(), keys.len()) {
                (Some(own), 1) => Ok((*own, keys, signers)),
                _ => Err(ApiError::usage(
                    "several keys sign a release only where its publisher lent its releases to them",
                )
                .with_hint("say whose it is with --publisher")),
            };
        };
        let own = self.publishers_called(called);
        if let Some(own) = own.iter().find(|own| keys.contains(own)) {
            return Ok((*own, keys, signers));
        }
        let path = PathBuf::from(&request.file);
        let description = blocking(move || Description::read(&path)).await?;
        let name = description.map_err(|error| ApiError::usage(error.to_string()))?.name().clone();
        let now = self.sound_now()?;
        let mut why = None;
        for publisher in &own {
            let known = self.catalog.delegations(publisher, &name);
            let seen = self.floors.release_delegation(publisher, &name);
            match authority(publisher, DelegatedRole::Release, &name, &known, seen) {
                Authority::Delegated { keys: lent, threshold, expires, record, .. } => {
                    let good =
                        lent.iter().filter(|key| keys.contains(key) && !self.is_revoked_for(key, publisher)).count();
                    if expires > now && good >= threshold {
                        return Ok((*publisher, lent.into_iter().chain(keys).collect(), signers));
                    }
                    why = Some(match expires <= now {
                        true => format!("the delegation of its releases has expired (record {record})"),
                        false => {
                            let lent: Vec<String> = lent.iter().map(|key| self.key_shown(key)).collect();
                            format!(
                                "{threshold} of {} must sign, says its publisher (record {record})",
                                lent.join(", ")
                            )
                        }
                    });
                }
                Authority::Contradicted { one, other, .. } => {
                    why = Some(format!("its publisher signed two delegations that differ (records {one} and {other})"));
                }
                Authority::Missing { seen } => {
                    why = Some(format!(
                        "delegation {seen} of its publisher was seen before, and is not known here any more"
                    ));
                }
                Authority::Publisher => {}
            }
        }
        let called: String = called.chars().take(80).collect();
        let why = match (own.is_empty(), why) {
            (true, _) => {
                return Err(ApiError::not_found(format!("no publisher is called '{called}' here"))
                    .with_hint("name it in [signers] of policy.toml, or give its key"));
            }
            (false, Some(why)) => why,
            (false, None) => "it has lent its releases of this name to nobody that is known here".into(),
        };
        Err(ApiError::failed(format!("{name} is not published for {called}: {why}")).with_hint(
            "its publisher lends them with: rialto delegate KEY --role release --key PUBLISHER'S-KEY --names NAME",
        ))
    }

    async fn sign_delegation(
        &self,
        root: &Signer,
        role: DelegatedRole,
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
