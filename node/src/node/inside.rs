//! The bills of materials that releases name, read from the store when policy asks what is inside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use rialto_protocol::bounded::Text;
use rialto_protocol::ids::{ImageId, PublicKey};
use rialto_protocol::package::{Bom, MAX_BOM_BYTES, Package};
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;

use super::Node;
use crate::catalog::{Hearing, Said, SharedRecord};
use crate::store::StoreError;
use crate::trust::{Facts, Hit, Inside, Policy, bearing_on, revocation_subjects};

/// Bills that are remembered: an image never changes, and reading one again takes a moment. About 100 kB each.
const MAX_REMEMBERED: usize = 128;

/// Bills that were read.
#[derive(Debug, Default)]
pub(crate) struct Bills(Mutex<BTreeMap<ImageId, Inside>>);

impl Node {
    /// What is inside of a release, where one of `policies` asks: the bill of materials that it names, and the advisories of their
    /// signers on every package that this or a statement lists.
    pub(super) fn inside_of(
        &self,
        release: &Verified<Record>,
        endorsements: &[SharedRecord],
        policies: &[Arc<Policy>],
    ) -> (Option<Inside>, Said) {
        let asking: Vec<&Arc<Policy>> = policies.iter().filter(|policy| policy.asks_what_is_inside()).collect();
        match asking.is_empty() {
            true => (None, Said::default()),
            false => self.look_inside(release, endorsements, &asking),
        }
    }

    /// The advisories of signers of a policy that bear on what is inside of a release, whether its rules ask or not. Blocks on
    /// the disk where its bill of materials was not read lately.
    pub(crate) fn bearing_on(
        &self,
        release: &Verified<Record>,
        endorsements: &[SharedRecord],
        policy: &Arc<Policy>,
    ) -> Vec<Hit> {
        let (inside, advisories) = self.look_inside(release, endorsements, &[policy]);
        let mut facts = Facts {
            endorsements: endorsements.iter().map(AsRef::as_ref).collect(),
            advisories: advisories.iter().map(AsRef::as_ref).collect(),
            inside,
            ..Facts::default()
        };
        let subjects = revocation_subjects(Some(policy), release, &facts);
        let revocations: Vec<_> = subjects.iter().flat_map(|subject| self.catalog.revocations_of(subject)).collect();
        facts.revocations = revocations.iter().map(AsRef::as_ref).collect();
        bearing_on(policy, release, &facts, self.now())
    }

    fn look_inside(
        &self,
        release: &Verified<Record>,
        endorsements: &[SharedRecord],
        asking: &[&Arc<Policy>],
    ) -> (Option<Inside>, Said) {
        let image = release.body.release().and_then(|release| release.sbom);
        let inside = image.map(|image| self.inside(&image));
        let mut names = BTreeSet::new();
        let mut name_all = |bom: &Bom| names.extend(bom.packages().iter().flat_map(Package::names).map(str::to_owned));
        if let Some(Inside::Known(bom)) = &inside {
            name_all(bom);
        }
        for policy in asking {
            for record in policy.looked_at(endorsements.iter().map(AsRef::as_ref)) {
                let Some(statement) = policy.statement(record) else { continue };
                if let Some(Ok(bom)) = statement.attestation().ok().and_then(Bom::of_statement) {
                    name_all(&bom);
                }
            }
        }
        let names = names.into_iter().filter_map(|name| Text::try_from(name).ok());
        let (mut advisories, mut unreadable) = (BTreeMap::new(), 0);
        let is_heard = |key: &PublicKey| asking.iter().any(|policy| policy.names(key));
        for name in names {
            let said = self.catalog.advisories_heard(&name, Hearing { is_heard: &is_heard, others: 0 });
            unreadable += said.unreadable;
            advisories.extend(said.into_iter().map(|record| (record.id, record)));
        }
        (inside, Said { records: advisories.into_values().collect(), unreadable })
    }

    /// What an image says is inside, where it is in the store whole. Blocks on the disk the first time.
    pub(super) fn inside(&self, image: &ImageId) -> Inside {
        let locked = || self.bills.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = locked().get(image) {
            return known.clone();
        }
        let read = match self.bill(image) {
            Ok(Ok(bytes)) => match Bom::parse(&bytes) {
                Ok(bom) => Inside::Known(Arc::new(bom)),
                Err(error) => Inside::Unknown(error.to_string()),
            },
            Ok(Err(bytes)) => Inside::Unknown(format!("it has {bytes} bytes, and at most {MAX_BOM_BYTES} are read")),
            // It may come: not remembered.
            Err(StoreError::MissingChunks { .. } | StoreError::MissingPages { .. }) => return not_here(image),
            Err(error) => return Inside::Unknown(error.to_string()),
        };
        let mut known = locked();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(*image, read.clone());
        read
    }

    /// The content of an image; its length where that is too long for a bill of materials.
    fn bill(&self, image: &ImageId) -> Result<Result<Vec<u8>, u64>, StoreError> {
        let manifest = self.store.manifest(image)?;
        let missing = self.store.missing_chunks(image)?.len() as u64;
        if missing > 0 {
            return Err(StoreError::MissingChunks { image: *image, missing });
        }
        let length = usize::try_from(manifest.bytes).ok().filter(|length| *length <= MAX_BOM_BYTES);
        let Some(length) = length else { return Ok(Err(manifest.bytes)) };
        // Holes are zeros, which no document has.
        let mut content = vec![0; length];
        for chunk in &manifest.chunks {
            let bytes = self.store.read_chunk(&chunk.hash)?;
            let start = usize::try_from(chunk.offset).unwrap_or(usize::MAX);
            let place = start.checked_add(bytes.len()).and_then(|end| content.get_mut(start..end));
            place.ok_or(StoreError::Damaged { what: "chunk", hash: chunk.hash })?.copy_from_slice(&bytes);
        }
        Ok(Ok(content))
    }
}

fn not_here(image: &ImageId) -> Inside {
    Inside::Unknown(format!("it is not in the store; rialto fetch {image} brings it, and deploys nothing"))
}
