//! Whose word is asked for. Anybody can say a hundred thousand things of one release; a verdict reads what those say whom policy
//! listens to, however much else there is, and some of the rest.

use rialto_protocol::bounded::Text;
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::RevocationSubject;

use super::admission::Holdings;
use super::index::Slot;
use super::{Catalog, Said, SharedRecord};

/// Whose word is asked for.
#[derive(Clone, Copy)]
pub struct Hearing<'a> {
    /// Whether this key's is: all that it says is given.
    pub is_heard: &'a dyn Fn(&PublicKey) -> bool,
    /// How many records of others are given beside, those that came first: a flood that comes later displaces none of them.
    pub others: usize,
}

impl Hearing<'_> {
    /// Everybody's word.
    const ALL: Self = Hearing { is_heard: &|_| true, others: 0 };

    fn among(&self, holdings: &Holdings, slots: impl Iterator<Item = Slot>) -> Vec<Slot> {
        let held = slots.filter_map(|slot| Some((holdings.index.held(slot)?, slot)));
        let (mut heard, mut others) = (Vec::new(), Vec::new());
        for (held, slot) in held {
            match held.signers.iter().any(|key| (self.is_heard)(key)) {
                true => heard.push(slot),
                false => others.push((held.arrival, slot)),
            }
        }
        if others.len() > self.others {
            others.select_nth_unstable(self.others);
            others.truncate(self.others);
        }
        heard.extend(others.into_iter().map(|(_, slot)| slot));
        heard
    }
}

impl Catalog {
    /// What is said of a release.
    pub fn endorsements_of(&self, release: &RecordId) -> Vec<SharedRecord> {
        self.endorsements_heard(release, Hearing::ALL)
    }

    /// Advisories on a package, of whatever ecosystem.
    pub fn advisories_on(&self, package: &Text<256>) -> Said {
        self.advisories_heard(package, Hearing::ALL)
    }

    /// Who withdrew this. Whether a revocation is a fact or an opinion is the policy's question.
    pub fn revocations_of(&self, subject: &RevocationSubject) -> Said {
        self.revocations_heard(subject, Hearing::ALL)
    }

    /// What is said of a release by those who are heard, and a little of what others say.
    pub fn endorsements_heard(&self, release: &RecordId, hearing: Hearing<'_>) -> Vec<SharedRecord> {
        let mut said = self.said(|holdings| hearing.among(holdings, holdings.index.endorsements(release)));
        said.records.retain(|record| record.body.endorsement().is_some_and(|said| said.subject == *release));
        said.records
    }

    /// Who of those who are heard withdrew this, and a few of the others.
    pub fn revocations_heard(&self, subject: &RevocationSubject, hearing: Hearing<'_>) -> Said {
        self.said(|holdings| hearing.among(holdings, holdings.index.revocations(subject)))
    }

    /// Advisories on a package, of whatever ecosystem, by those who are heard, and a few of the others.
    pub fn advisories_heard(&self, package: &Text<256>, hearing: Hearing<'_>) -> Said {
        let mut said = self.said(|holdings| hearing.among(holdings, holdings.index.advisories(package)));
        said.records.retain(|record| record.body.advisory().is_some_and(|advisory| advisory.package == *package));
        said
    }
}
