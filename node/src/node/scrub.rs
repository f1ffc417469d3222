//! Scrubbing: the store is read over again, slowly and always or at once and on request; what was lost is fetched.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rialto_protocol::ids::ImageId;
use rialto_web::api::{ApiError, Change, ScrubStatus, Scrubbed};
use tokio::sync::watch;

use super::Node;
use super::work::{blocking, store_error};
use crate::jobs::Reporter;
use crate::net::bulk::FetchProgress;
use crate::store::{ScrubPlace, ScrubStep};

/// From the end of a round to the beginning of the next: disks are known to lose a sector in months, not in days.
const ROUND_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often it is looked whether the next round is due.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Read at once where somebody waits for it, in bytes.
const HASTY_STEP_BYTES: u64 = 16 << 20;
/// A place is written down after this much, in bytes: what a restart reads twice.
const SAVE_EVERY_BYTES: u64 = 256 << 20;

/// What scrubbing found, and where its place is kept.
pub(crate) struct Scrub {
    file: PathBuf,
    status: Mutex<ScrubStatus>,
}

impl Scrub {
    pub(crate) fn new(file: PathBuf) -> Self {
        let finished =
            std::fs::metadata(&file).ok().filter(|found| found.len() == 0).and_then(|found| found.modified().ok());
        let finished = finished.and_then(|time| jiff::Timestamp::try_from(time).ok()).map(|time| time.to_string());
        Self { file, status: Mutex::new(ScrubStatus { finished, ..ScrubStatus::default() }) }
    }

    pub(crate) fn status(&self) -> ScrubStatus {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ScrubStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, step: &ScrubStep) {
        let mut status = self.lock();
        status.read_bytes += step.bytes;
        status.damaged_chunks += step.damaged;
    }

    /// The place where the last round was interrupted; its beginning where a new one is due; `None` before that.
    fn begin(&self) -> Option<ScrubPlace> {
        let Ok(text) = std::fs::read_to_string(&self.file) else { return Some(ScrubPlace::default()) };
        if !text.is_empty() {
            return Some(ScrubPlace::parse(&text).unwrap_or_default());
        }
        let since = std::fs::metadata(&self.file).and_then(|found| found.modified()).ok()?.elapsed();
        // A clock that was set back must not stop it for ever.
        (since.is_err() || since.is_ok_and(|since| since >= ROUND_EVERY)).then(ScrubPlace::default)
    }

    /// Writes down a place, or with nothing the end of a round.
    fn save(&self, place: Option<ScrubPlace>) {
        let text = place.map(ScrubPlace::to_text).unwrap_or_default();
        // Where that fails, a restart reads more than it had to.
        if let Err(error) = std::fs::write(&self.file, text) {
            tracing::warn!(file = %self.file.display(), %error, "cannot write down how far the store was checked");
        }
        if place.is_none() {
            self.lock().finished = jiff::Timestamp::try_from(SystemTime::now()).ok().map(|time| time.to_string());
        }
    }
}

impl Node {
    /// Reads the store over again at the rate of the configuration, round after round.
    pub(crate) async fn scrub_in_background(self: Arc<Self>) {
        let rate = self.config.store.scrub_rate.bytes();
        if rate == 0 {
            return;
        }
        loop {
            let node = Arc::clone(&self);
            match blocking(move || node.scrub.begin()).await {
                Ok(Some(place)) => self.scrub_round(place, rate).await,
                Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                Err(_) => return,
            }
        }
    }

    async fn scrub_round(self: &Arc<Self>, mut place: ScrubPlace, rate: u64) {
        self.scrub.lock().is_running = true;
        let mut unsaved = 0;
        loop {
            let started = Instant::now();
            let step = match self.scrub_step(place, rate).await {
                Ok(step) => step,
                Err(error) => {
                    tracing::error!(error = error.message, "the store cannot be checked; it is tried again");
                    break tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            if step.damaged > 0 {
                self.mend().await;
            }
            unsaved += step.bytes;
            if unsaved >= SAVE_EVERY_BYTES || step.next.is_none() {
                unsaved = 0;
                let node = Arc::clone(self);
                blocking(move || node.scrub.save(step.next)).await.ok();
            }
            let Some(next) = step.next else { break };
            place = next;
            let due = Duration::from_secs_f64(step.bytes as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
        self.scrub.lock().is_running = false;
    }

    /// Reads the whole store over again at once, and fetches what is missing.
    pub(crate) async fn scrub_now(self: Arc<Self>, reporter: Reporter) -> Result<Scrubbed, ApiError> {
        let started = Instant::now();
        let (mut place, mut bytes, mut damaged_chunks) = (ScrubPlace::default(), 0, 0);
        let total = self.store.scrub_bytes();
        loop {
            reporter.progress("checking", bytes, total.max(bytes));
            let step = self.scrub_step(place, HASTY_STEP_BYTES).await?;
            (bytes, damaged_chunks) = (bytes + step.bytes, damaged_chunks + step.damaged);
            let Some(next) = step.next else { break };
            place = next;
        }
        reporter.progress("fetching what was lost", 0, 0);
        let (mended, lost) = self.mend().await;
        let node = Arc::clone(&self);
        blocking(move || node.scrub.save(None)).await?;
        Ok(Scrubbed { bytes, damaged_chunks, mended, lost, seconds: started.elapsed().as_secs_f64() })
    }

    async fn scrub_step(&self, place: ScrubPlace, bytes: u64) -> Result<ScrubStep, ApiError> {
        let store = self.store.clone();
        let step = blocking(move || store.scrub(place, bytes)).await?.map_err(store_error)?;
        self.scrub.count(&step);
        Ok(step)
    }

    /// Fetches what images lack that were whole once. Returns those that are whole again, and those that are not.
    async fn mend(&self) -> (Vec<ImageId>, Vec<ImageId>) {
        let store = self.store.clone();
        let incomplete = match blocking(move || store.incomplete_by_loss()).await {
            Ok(Ok(incomplete)) => incomplete,
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be looked through for what was lost");
                return (Vec::new(), Vec::new());
            }
            Err(_) => return (Vec::new(), Vec::new()),
        };
        let (mut mended, mut lost) = (Vec::new(), Vec::new());
        for image in incomplete {
            let (progress, _) = watch::channel(FetchProgress::default());
            match self.exchange.fetch(image, &[], &progress).await {
                Ok(_) => {
                    tracing::info!(%image, "what was lost of this image was fetched again");
                    mended.push(image);
                }
                Err(error) => {
                    tracing::warn!(%image, %error, "a part of this image is damaged, and nobody who was asked has it");
                    lost.push(image);
                }
            }
        }
        if !mended.is_empty() || !lost.is_empty() {
            self.changed(Change::Store);
        }
        self.scrub.lock().lost.clone_from(&lost);
        (mended, lost)
    }
}
