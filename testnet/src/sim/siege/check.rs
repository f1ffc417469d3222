//! What must hold during a siege and after it.

use std::collections::BTreeMap;

use rialto_node::trust::{Reading, Verdict};
use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::RecordId;

use super::super::check::{Decided, decided};
use super::super::timeline::{Micros, SECOND};
use super::SiegeError;
use super::world::{Event, World};

/// Between two looks at all verdicts.
const CHECK_INTERVAL: Micros = 10 * SECOND;
/// A site's time may be this much behind: what passed since it wrote the time down last, when it was started again.
const SLACK: UnixSeconds = 2 + 10;

impl World {
    /// Whether every verdict is true.
    pub(super) fn check(&mut self) -> Result<bool, SiegeError> {
        let wrong = self.find_wrong()?;
        self.timeline.note("check", &[u64::from(wrong.is_none())]);
        match wrong {
            None => Ok(true),
            Some(error) if self.timeline.now() > self.siege.deadline_seconds * SECOND => Err(error),
            Some(_) => {
                self.timeline.after(CHECK_INTERVAL, Event::Check);
                Ok(false)
            }
        }
    }

    fn find_wrong(&mut self) -> Result<Option<SiegeError>, SiegeError> {
        // Sites of one policy and one time have one truth.
        let mut truths = BTreeMap::<(usize, UnixSeconds, RecordId), Option<Decided>>::new();
        let (mut judges, mut apart, mut verdicts, mut accepted) = (0, 0, 0, 0);
        for place in self.honest() {
            let is_connected = |world: &Self| {
                let mut named = world.main.iter().filter(|(signer, _)| world.sites[place].policy.names(signer));
                named.all(|(_, main)| main.contains(&place))
            };
            if !is_connected(self) {
                apart += 1;
                continue;
            }
            judges += 1;
            let reading = self.reading(place)?;
            let here = &self.sites[place];
            for (release, publisher) in self.truth.releases() {
                if !here.policy.names(publisher) {
                    continue;
                }
                let truth = truths
                    .entry((here.site.policy_number, reading.now, *release))
                    .or_insert_with(|| self.truth.verdict(&here.policy, release, reading.now).as_ref().map(decided));
                let verdict = here.site.judge(release, reading.now).filter(|_| reading.doubt.is_none());
                let said = verdict.as_ref().map(decided);
                let is_accepted =
                    |decided: &Option<Decided>| decided.as_ref().is_some_and(|(.., images)| !images.is_empty());
                // What a stranger says in a publisher's name need not be known here.
                let is_true = match &said {
                    None => !is_accepted(truth) && !self.truth.is_by_its_publisher(release),
                    said => said == truth,
                };
                if !is_true {
                    return Ok(Some(SiegeError::WrongVerdict {
                        site: place,
                        release: *release,
                        said: shown(verdict.as_ref()),
                        truth: shown(self.truth.verdict(&here.policy, release, reading.now).as_ref()),
                        seconds: self.timeline.now() / SECOND,
                    }));
                }
                verdicts += 1;
                accepted += u64::from(is_accepted(&said));
            }
        }
        self.summary.judges = judges;
        self.summary.apart = apart;
        self.summary.verdicts = verdicts;
        self.summary.accepted = accepted;
        Ok(None)
    }

    /// A site's time is neither before the true one, nor after it by more than a person has said.
    pub(super) fn check_time(&self, site: usize, reading: Reading) -> Result<(), SiegeError> {
        let here = &self.sites[site];
        let right = self.now() + here.time.away;
        let is_ahead = reading.now > right + here.time.allowed + SLACK;
        let is_behind = reading.doubt.is_none() && reading.now + SLACK < right;
        match here.is_honest() && (is_ahead || is_behind) {
            true => Err(SiegeError::Misled { site, believed: reading.now, right }),
            false => Ok(()),
        }
    }

    pub(super) fn check_records(&self) -> Result<(), SiegeError> {
        for (site, here) in self.sites.iter().enumerate().filter(|(_, here)| here.is_honest()) {
            if let Some(known) = here.site.records().find(|known| !self.truth.holds(&known.record)) {
                return Err(SiegeError::Forged { site, record: known.record.id });
            }
        }
        Ok(())
    }
}

fn shown(verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else { return "nothing".to_owned() };
    let because: Vec<&str> = verdict.requirements().iter().map(|requirement| requirement.because.as_str()).collect();
    format!("{} by rule '{}': {} {}", verdict.kind().as_str(), verdict.rule(), verdict.because(), because.join("; "))
}
