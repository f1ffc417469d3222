//! Long pieces of work that were asked for over the API: their progress, their end, and how to stop them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rialto_web::api::{ApiError, BoxStream, ErrorCode, JobEvent, JobStarted};
use serde::Serialize;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

/// Jobs that run at once.
const MAX_RUNNING: usize = 64;
/// Jobs remembered after their end, so that who asks late is told.
const MAX_ENDED: usize = 128;

/// All jobs of a node.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    jobs: BTreeMap<u64, Job>,
    next: u64,
    is_closed: bool,
}

struct Job {
    state: watch::Receiver<JobEvent>,
    cancel: CancellationToken,
}

impl Job {
    fn has_ended(&self) -> bool {
        !matches!(*self.state.borrow(), JobEvent::Progress { .. })
    }
}

/// What a running job tells of itself.
#[derive(Clone)]
pub struct Reporter {
    state: watch::Sender<JobEvent>,
    /// Whether it should stop.
    pub cancel: CancellationToken,
}

impl Reporter {
    /// How far it is, in bytes; `total` 0 while unknown. What a thread says that has not heard of the job's end yet is
    /// not told: the end is the last word.
    pub fn progress(&self, stage: &str, done: u64, total: u64) {
        self.state.send_if_modified(|state| {
            let goes_on = matches!(state, JobEvent::Progress { .. });
            if goes_on {
                *state = JobEvent::Progress { stage: stage.to_owned(), done, total };
            }
            goes_on
        });
    }
}

impl Jobs {
    /// Starts a job, which the log calls by `name`. It is stopped by dropping its future, and by its [`Reporter`]'s token
    /// where it blocks.
    ///
    /// # Errors
    /// Too many jobs run, or the node is shutting down.
    pub fn start<T, F>(&self, name: String, work: impl FnOnce(Reporter) -> F) -> Result<JobStarted, ApiError>
    where
        T: Serialize,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.is_closed {
            return Err(ApiError::new(ErrorCode::NotRunning, "the node is shutting down"));
        }
        if inner.jobs.values().filter(|job| !job.has_ended()).count() >= MAX_RUNNING {
            return Err(ApiError::failed(format!("{MAX_RUNNING} jobs are running already"))
                .with_hint("wait until some have ended, then try again"));
        }
        inner.forget_oldest();
        let id = inner.next;
        inner.next += 1;
        let (state, receiver) = watch::channel(JobEvent::Progress { stage: "starting".into(), done: 0, total: 0 });
        let cancel = CancellationToken::new();
        inner.jobs.insert(id, Job { state: receiver, cancel: cancel.clone() });
        drop(inner);
        let reporter = Reporter { state: state.clone(), cancel: cancel.clone() };
        let running = work(reporter);
        let running = async move {
            let value = running.await?;
            serde_json::to_value(value).map_err(|error| ApiError::failed(format!("the result cannot be told: {error}")))
        };
        let started = Instant::now();
        tokio::spawn(async move {
            // A task of its own, so that a job which panics ends like one that fails.
            let ended = match tokio::spawn(cancel.clone().run_until_cancelled_owned(running)).await {
                Ok(Some(result)) => result,
                Ok(None) => Err(ApiError::failed("cancelled").with_hint("what was stored so far stays")),
                Err(_) => Err(ApiError::failed("a bug in this node ended the job")
                    .with_hint("the node's log says where; please report it")),
            };
            let took = format!("{:.1} s", started.elapsed().as_secs_f64());
            match &ended {
                Ok(_) => tracing::info!("{name}: done in {took}"),
                Err(_) if cancel.is_cancelled() => tracing::info!("{name}: cancelled after {took}"),
                Err(error) => tracing::warn!("{name}: failed after {took}: {}", error.message),
            }
            state.send_replace(match ended {
                Ok(result) => JobEvent::Done { result },
                Err(error) => JobEvent::Failed { error },
            });
        });
        Ok(JobStarted { job: id.to_string() })
    }

    /// What a job says: its latest word first, then as it comes, then its end.
    ///
    /// # Errors
    /// No such job, or its end is forgotten.
    pub fn events(&self, job: &str) -> Result<BoxStream<JobEvent>, ApiError> {
        let state = self.with(job, |job| job.state.clone())?;
        // It ends with the job's last word, not when the last thread that could say something has gone.
        let events = futures::stream::unfold((WatchStream::new(state), false), async |(mut state, has_ended)| {
            if has_ended {
                return None;
            }
            let event = state.next().await?;
            let has_ended = !matches!(event, JobEvent::Progress { .. });
            Some((event, (state, has_ended)))
        });
        Ok(Box::pin(events))
    }

    /// Stops a job.
    ///
    /// # Errors
    /// No such job.
    pub fn cancel(&self, job: &str) -> Result<(), ApiError> {
        self.with(job, |job| job.cancel.cancel())
    }

    /// Stops all jobs, and starts no more: the node is shutting down.
    pub fn close(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.is_closed = true;
        for job in inner.jobs.values() {
            job.cancel.cancel();
        }
    }

    fn with<T>(&self, job: &str, act: impl FnOnce(&Job) -> T) -> Result<T, ApiError> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = job.parse().ok().and_then(|id: u64| inner.jobs.get(&id));
        found.map(act).ok_or_else(|| ApiError::new(ErrorCode::NotFound, "no such job, or it ended long ago"))
    }
}

impl Inner {
    fn forget_oldest(&mut self) {
        let ended: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.has_ended()).map(|(&id, _)| id).collect();
        for id in ended.iter().take(ended.len().saturating_sub(MAX_ENDED)) {
            self.jobs.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_told_to_whoever_asks_and_only_once() {
        let jobs = Jobs::default();
        let started = jobs
            .start("test".into(), |reporter| async move {
                reporter.progress("reading", 1, 2);
                Ok(7)
            })
            .unwrap();
        for _ in 0..2 {
            let events: Vec<JobEvent> = jobs.events(&started.job).unwrap().collect().await;
            assert_eq!(events.last(), Some(&JobEvent::Done { result: 7.into() }));
            assert_eq!(events.iter().filter(|event| matches!(event, JobEvent::Done { .. })).count(), 1);
        }
    }

    #[tokio::test]
    async fn a_cancelled_job_fails() {
        let jobs = Jobs::default();
        let started = jobs.start("test".into(), |_| std::future::pending::<Result<(), ApiError>>()).unwrap();
        jobs.cancel(&started.job).unwrap();
        let events: Vec<JobEvent> = jobs.events(&started.job).unwrap().collect().await;
        assert!(matches!(events.last(), Some(JobEvent::Failed { .. })));
    }

    #[tokio::test]
    async fn a_thread_that_did_not_hear_of_the_end_does_not_bring_a_job_back_to_life() {
        let jobs = Jobs::default();
        let (sender, reporter) = tokio::sync::oneshot::channel();
        let started = jobs
            .start("a test".into(), |reporter| async move {
                sender.send(reporter).ok();
                std::future::pending::<Result<(), ApiError>>().await
            })
            .unwrap();
        let reporter = reporter.await.unwrap();
        jobs.cancel(&started.job).unwrap();
        let mut events = jobs.events(&started.job).unwrap();
        while let Some(JobEvent::Progress { .. }) = events.next().await {}
        reporter.progress("reading", 1, 2);
        let last: Vec<JobEvent> = jobs.events(&started.job).unwrap().collect().await;
        assert!(matches!(last[..], [JobEvent::Failed { .. }]), "{last:?}");
    }

    #[tokio::test]
    async fn a_job_that_panics_fails_and_gives_its_place_back() {
        let jobs = Jobs::default();
        let started =
            jobs.start("a test".into(), |_| async { if true { panic!("on purpose") } else { Ok(()) } }).unwrap();
        let events: Vec<JobEvent> = jobs.events(&started.job).unwrap().collect().await;
        assert!(matches!(events.last(), Some(JobEvent::Failed { .. })));
    }

    #[tokio::test]
    async fn a_node_that_shuts_down_ends_its_jobs_and_starts_none() {
        let jobs = Jobs::default();
        let started = jobs.start("a test".into(), |_| std::future::pending::<Result<(), ApiError>>()).unwrap();
        jobs.close();
        let events: Vec<JobEvent> = jobs.events(&started.job).unwrap().collect().await;
        assert!(matches!(events.last(), Some(JobEvent::Failed { .. })));
        let refused = jobs.start("a test".into(), |_| std::future::pending::<Result<(), ApiError>>()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotRunning);
    }

    #[tokio::test]
    async fn there_is_a_bound_on_jobs() {
        let jobs = Jobs::default();
        for _ in 0..MAX_RUNNING {
            jobs.start("test".into(), |_| std::future::pending::<Result<(), ApiError>>()).unwrap();
        }
        assert!(jobs.start("test".into(), |_| std::future::pending::<Result<(), ApiError>>()).is_err());
        assert!(jobs.events("nonsense").is_err());
    }
}
