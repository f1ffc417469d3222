//! Instances that follow a channel: what the channel moves to is proposed, or takes their place, as policy says.
//!
//! An instance is replaced in steps that a crash may come between:
//!
//! 1. the new release is judged, its settings are checked, and what its images lack is fetched, while the old one runs;
//! 2. the old one is suspended, so that its ports and its memory are free, and nothing of it is lost;
//! 3. the new one is deployed with the same settings, and has to run for a while (`deploy.update-trial`);
//! 4. the old one is stopped, and kept until it is removed; the one that it once replaced goes.
//!
//! Where 3 fails, the old one goes on where it stood still, and this release is not tried again. Where it does not come so far,
//! nothing has happened to the old one, and it is tried again later: a holder may be away for an hour. One after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::ids::RecordId;
use rialto_web::api::{ApiError, ErrorCode, Instance, VerdictKind};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Node;
use super::work::{StillJudging, blocking};
use crate::catalog::SharedRecord;
use crate::deploy::{DeploySpec, InstanceRecord, Proposal, Remark, State};
use crate::jobs::Reporter;
use crate::trust::{Accepted, Update};

/// How often it is looked where channels point, at least: an hour of the day or an expiry can change a verdict too.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// News come in bursts; a look is for all of a moment.
const GATHER: Duration = Duration::from_millis(300);
/// How long an update waits that could not begin; each time that it still cannot, twice as long.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// At most so long.
const AGAIN_AFTER_MOST: Duration = Duration::from_secs(60 * 60);

/// What an instance's channel wants of it.
enum Wanted {
    /// Nothing: it runs what the channel points at, or policy would not have it replaced.
    Nothing,
    /// Nobody can tell: what the channel points at is not known, or not accepted as things are.
    Unknown,
    /// To be shown.
    Propose(Proposal),
    /// To be done.
    Replace(SharedRecord, String),
}

/// Updates that could not begin, by instance: which release, how often it was tried, and when it is tried again.
type Postponed = BTreeMap<String, (RecordId, u32, Instant)>;

/// How an update failed.
struct Failure {
    why: String,
    /// Whether the new release is to blame, or who cancelled it: it is not tried again.
    is_final: bool,
}

/// What came of an update.
#[derive(Debug, Serialize)]
struct Updated {
    replaced: String,
    instance: String,
}

impl Node {
    /// Looks after instances that follow channels, until it is cancelled.
    pub(super) async fn follow_channels(self: Arc<Self>) {
        let (mut records, mut policy) = (self.catalog.changes(), self.policy.clone());
        let mut instances = self.deployer.changes();
        let mut postponed = Postponed::new();
        self.take_up_updates().await;
        loop {
            let known = self.deployer.records();
            postponed.retain(|id, _| known.iter().any(|record| record.id == *id));
            for record in known {
                self.look_after(record, &mut postponed).await;
            }
            tokio::select! {
                Ok(()) = records.changed() => {}
                Ok(()) = policy.changed() => {}
                Ok(()) = instances.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn look_after(self: &Arc<Self>, record: InstanceRecord, postponed: &mut Postponed) {
        if record.state != State::Running || record.follows.is_none() || record.updating.is_some() {
            return;
        }
        let (node, looked_at) = (Arc::clone(self), record.clone());
        let Ok(wanted) = blocking(move || node.wanted(&looked_at)).await else { return };
        let proposal = match wanted {
            Wanted::Nothing => None,
            // What did not come up once is remembered for when it can be told again.
            Wanted::Unknown => record.update.clone().filter(|tried| tried.has_failed),
            Wanted::Propose(proposal) => Some(proposal),
            Wanted::Replace(release, title) => return self.replace_when_due(record, release, title, postponed).await,
        };
        if proposal != record.update {
            if let Some(proposal) = &proposal {
                tracing::info!(instance = record.id, "{}", proposal.text);
            }
            self.note_update(&record.id, proposal).await;
        }
    }

    /// What its channel wants of an instance: its head counts only while nothing speaks against it, so it never leads below
    /// what was seen before.
    fn wanted(&self, record: &InstanceRecord) -> Wanted {
        let Some(channel) = record.follows.as_ref().and_then(|follows| follows.channel()) else {
            return Wanted::Nothing;
        };
        let Some(release) = self.channel(&channel).state.fresh() else { return Wanted::Unknown };
        if release == record.release {
            return Wanted::Nothing;
        }
        let is_of_channel = |found: &SharedRecord| {
            self.is_published(found)
                && found
                    .body
                    .release()
                    .is_some_and(|release| release.publisher == channel.publisher && release.name == channel.name)
        };
        let Some(found) = self.catalog.get(&release).filter(is_of_channel) else { return Wanted::Unknown };
        let title = self.title(&found);
        let verdict = self.judge(Arc::clone(&found)).verdict;
        if verdict.kind() != VerdictKind::Accept {
            return Wanted::Unknown;
        }
        match (verdict.update(), &record.update) {
            (Update::Never, _) => Wanted::Nothing,
            (Update::Auto, Some(tried)) if tried.has_failed && tried.release == release => {
                Wanted::Propose(tried.clone())
            }
            (Update::Auto, _) => Wanted::Replace(found, title),
            (Update::Propose, _) => {
                let followed = record.follows.as_ref().map(|follows| follows.title.as_str()).unwrap_or_default();
                let text =
                    format!("{followed} has moved to {title}, which policy accepts; deploy that and stop this one");
                Wanted::Propose(Proposal { release, text, has_failed: false })
            }
        }
    }

    /// Puts a release in an instance's place, unless that could not begin lately.
    async fn replace_when_due(
        self: &Arc<Self>,
        old: InstanceRecord,
        release: SharedRecord,
        title: String,
        postponed: &mut Postponed,
    ) {
        let (id, target) = (old.id.clone(), release.id);
        let before = postponed.get(&id).filter(|(tried, ..)| *tried == target).map(|(_, times, due)| (*times, *due));
        if before.is_some_and(|(_, due)| Instant::now() < due) {
            return;
        }
        postponed.remove(&id);
        let Err(failure) = self.update(old, release, title.clone()).await else { return };
        let text = match failure.is_final {
            true => format!("the update to {title} failed, and it runs on: {}", failure.why),
            false => {
                let times = before.map_or(0, |(times, _)| times);
                let pause = AGAIN_AFTER.saturating_mul(1 << times.min(16)).min(AGAIN_AFTER_MOST);
                postponed.insert(id.clone(), (target, times + 1, Instant::now() + pause));
                format!("the update to {title} could not begin, and is tried again: {}", failure.why)
            }
        };
        tracing::error!(instance = id, "{text}");
        self.note_update(&id, Some(Proposal { release: target, text, has_failed: failure.is_final })).await;
    }

    /// Puts a release in an instance's place, as a job, and waits for its end.
    async fn update(
        self: &Arc<Self>,
        old: InstanceRecord,
        release: SharedRecord,
        title: String,
    ) -> Result<(), Failure> {
        tracing::info!(instance = old.id, "its channel has moved: {} is replaced by {title}", old.title);
        let name = format!("updating instance {} from {} to {title}", old.id, old.title);
        let (ended, end) = oneshot::channel();
        let node = Arc::clone(self);
        let job = self.jobs.start(name, {
            let title = title.clone();
            move |reporter| async move {
                let prepared = node.prepare(&old, &release, title, &reporter).await;
                let (updated, is_final) = match prepared {
                    Ok((accepted, spec)) => (node.replace(&old, &release, &accepted, spec, reporter).await, true),
                    Err(error) => (Err(error), false),
                };
                let failure = |error: &ApiError| Failure { why: error.message.clone(), is_final };
                let _ = ended.send(updated.as_ref().map(|_| ()).map_err(failure));
                updated
            }
        });
        job.map_err(|error| Failure { why: error.message, is_final: false })?;
        let failure = match end.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failure,
            // Cancelled, or a bug: whatever it left is put in order.
            Err(_) => Failure { why: "it was cancelled".to_owned(), is_final: true },
        };
        self.take_up_updates().await;
        Err(failure)
    }

    /// Step 1: the old instance runs.
    async fn prepare(
        self: &Arc<Self>,
        old: &InstanceRecord,
        release: &SharedRecord,
        title: String,
        reporter: &Reporter,
    ) -> Result<(Accepted, DeploySpec), ApiError> {
        let (deployer, id) = (self.deployer.clone(), old.id.clone());
        let set = blocking(move || deployer.settings(&id)).await??;
        let spec = DeploySpec {
            set,
            publish: old.ports.clone(),
            title,
            follows: old.follows.clone(),
            replaces: Some(old.id.clone()),
        };
        let accepted = self.decided(release).await?;
        self.deployer.check(&accepted, &spec)?;
        self.fetch_images(accepted.images(), reporter).await?;
        // What was accepted before a long fetch may be revoked after it.
        Ok((self.decided(release).await?, spec))
    }

    /// The others.
    async fn replace(
        self: &Arc<Self>,
        old: &InstanceRecord,
        release: &SharedRecord,
        accepted: &Accepted,
        spec: DeploySpec,
        reporter: Reporter,
    ) -> Result<Updated, ApiError> {
        self.deployer.remark(&old.id, Remark::Updating(Some(release.id))).await?;
        self.deployer.suspend(&old.id).await?;
        let judge = Arc::new(StillJudging { node: Arc::clone(self), release: Arc::clone(release), reporter });
        let new = self.deployer.deploy(accepted, spec, judge).await?;
        self.stands_trial(&new.instance).await?;
        self.give_up(old, &new).await?;
        Ok(Updated { replaced: old.id.clone(), instance: new.instance })
    }

    /// Waits until a new instance has run for as long as it has to.
    async fn stands_trial(&self, instance: &str) -> Result<(), ApiError> {
        let mut changes = self.deployer.changes();
        let ended = timeout(self.config.deploy.update_trial, async {
            loop {
                changes.borrow_and_update();
                let found = self.deployer.find(instance)?;
                if found.state != State::Running.as_str() {
                    let why = found.note.unwrap_or_else(|| format!("it is {}", found.state));
                    return Err(ApiError::failed(format!("instance {instance} did not stay: {why}")));
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        ended.await.unwrap_or(Ok(()))
    }

    /// The last step: the old instance is over, and the one that it once replaced goes.
    async fn give_up(&self, old: &InstanceRecord, new: &Instance) -> Result<(), ApiError> {
        self.deployer.stop(&old.id, true).await?;
        let note = format!("replaced by instance {} ({})", new.instance, new.title);
        tracing::info!(instance = old.id, "{note}");
        self.deployer.remark(&old.id, Remark::Note(note)).await?;
        self.note_update(&old.id, None).await;
        self.deployer.remark(&old.id, Remark::Updating(None)).await?;
        if let Some(older) = &old.replaces
            && let Err(error) = self.deployer.remove(older).await
        {
            tracing::debug!(instance = older, %error, "the version before is not there any more");
        }
        Ok(())
    }

    /// Puts in order what an update left that did not come to its end: where the new instance runs and stands its trial, it
    /// stays; else the old one goes on.
    async fn take_up_updates(self: &Arc<Self>) {
        for old in self.deployer.records().into_iter().filter(|record| record.updating.is_some()) {
            if let Err(error) = self.take_up(&old).await {
                tracing::error!(
                    instance = old.id,
                    error = error.message,
                    "it cannot go on after an update that failed"
                );
                let note = format!("an update failed, and it cannot go on: {}", error.message);
                let _ = self.deployer.remark(&old.id, Remark::Note(note)).await;
            }
        }
    }

    async fn take_up(self: &Arc<Self>, old: &InstanceRecord) -> Result<(), ApiError> {
        let is_new = |record: &InstanceRecord| {
            record.replaces.as_ref() == Some(&old.id) && Some(record.release) == old.updating && !record.state.is_over()
        };
        let new = self.deployer.records().into_iter().find(is_new);
        if let Some(new) = new {
            if self.stands_trial(&new.id).await.is_ok() {
                return self.give_up(old, &self.deployer.find(&new.id)?).await;
            }
            self.deployer.stop(&new.id, true).await?;
        }
        // Looked at again: it may have been about to be suspended.
        if self.deployer.find(&old.id)?.state == State::Suspended.as_str() {
            match self.resume_instance(&old.id).await {
                Ok(resumed) => {
                    tracing::warn!(
                        instance = resumed.instance,
                        "it goes on after an update that did not come to its end"
                    );
                }
                // It stands still as any instance of a release that is revoked does; the update is over.
                Err(error) if error.code == ErrorCode::Refused => {
                    self.deployer.remark(&old.id, Remark::Note(error.message)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.deployer.remark(&old.id, Remark::Updating(None)).await?)
    }

    async fn note_update(&self, instance: &str, proposal: Option<Proposal>) {
        if let Err(error) = self.deployer.remark(instance, Remark::Update(proposal)).await {
            tracing::debug!(instance, %error, "what its channel points at cannot be noted");
        }
    }
}
