//! Suspending and resuming: what a [`Keeper`] does between a guest and its saved memory.
//!
//! The memory goes with the disks as they were when it was saved, so it is forgotten before its guest goes on. What resuming
//! takes is in the record before the guest's process ends. So whatever a crash comes between, either the guest is there, or
//! a whole memory of it that fits its disks.

use std::sync::Arc;

use super::DeployError;
use super::hypervisor::{Guest, HypervisorError};
use super::instance::{State, note};
use super::keeper::{Keeper, blocking, end};

impl Keeper {
    /// The same, where a crash came between a guest and its saved memory. One that stands still beside a memory that is
    /// being saved goes on; beside a whole one that is to be loaded it is ended, since it has not gone on yet.
    pub(super) async fn adopt_suspended(
        &mut self,
        state: State,
        adopted: Result<Option<Box<dyn Guest>>, HypervisorError>,
    ) -> Option<Box<dyn Guest>> {
        let is_saved = self.hypervisor.has_saved(&self.home) && self.record.borrow().saved.is_some();
        let away = "while the node was away";
        let (next, why, guest) = match (adopted, state, is_saved) {
            (Err(error), ..) => (State::Failed, Some(format!("the guest was not found again: {error}")), None),
            (Ok(Some(mut guest)), State::Suspending, _) | (Ok(Some(mut guest)), State::Resuming, false) => {
                match self.go_on(&mut guest).await {
                    Ok(()) => (State::Running, None, Some(guest)),
                    // Nobody could tell it to stop either; it is ended as a failed one.
                    Err(error) => (State::Failed, Some(format!("the guest does not go on: {error}")), Some(guest)),
                }
            }
            (Ok(Some(_)), _, true) => match self.end_leftover().await {
                Ok(()) => (State::Suspended, None, None),
                Err(error) => (State::Failed, Some(format!("a guest runs that is suspended: {error}")), None),
            },
            (Ok(None), _, true) => (State::Suspended, None, None),
            (Ok(_), _, false) => {
                (State::Failed, Some(format!("the guest ended {away}, and no memory of it is saved")), None)
            }
        };
        let pid = guest.as_ref().and_then(|guest| guest.pid());
        self.change(|record| {
            record.state = next;
            record.note = why.or(record.note.take());
            record.pid = pid;
            record.saved = record.saved.take().filter(|_| next == State::Suspended);
        })
        .await;
        if next == State::Running { guest } else { None }
    }

    /// Lets a guest go on whose saved memory, if there is any, is of the past from now on.
    async fn go_on(&self, guest: &mut Box<dyn Guest>) -> Result<(), DeployError> {
        self.forget_saved().await?;
        Ok(guest.go_on().await?)
    }

    async fn forget_saved(&self) -> Result<(), DeployError> {
        let (hypervisor, home) = (Arc::clone(&self.hypervisor), self.home.clone());
        blocking("remove the guest's saved memory", move || hypervisor.forget_saved(&home)).await
    }

    pub(super) async fn suspend(&mut self, guest: &mut Option<Box<dyn Guest>>) -> Result<(), DeployError> {
        let state = self.state();
        let (Some(running), State::Running) = (guest.as_mut(), state) else {
            return Err(self.is_not("running"));
        };
        if self.record.borrow().machine.is_none() {
            return Err(DeployError::Earlier(self.record.borrow().id.clone()));
        }
        self.change(|record| record.state = State::Suspending).await;
        let saved = match running.suspend().await {
            Ok(saved) => saved,
            Err(error) => {
                let why = note(&format!("it was not suspended: {error}"));
                self.change(|record| {
                    record.state = State::Running;
                    record.note = Some(why);
                })
                .await;
                return Err(error.into());
            }
        };
        // What resuming takes is on disk before the guest is gone; a disk that its memory has filled may not take it.
        if let Err(error) = self.change_durably(|record| record.saved = Some(saved)).await {
            let went_on = self.go_on(running).await;
            let why = note(&match &went_on {
                Ok(()) => format!("it was not suspended: {error}"),
                Err(stuck) => format!("it was not suspended ({error}), and does not go on: {stuck}"),
            });
            if went_on.is_err() {
                end(guest).await?;
                *guest = None;
            }
            self.change(|record| {
                record.state = if went_on.is_ok() { State::Running } else { State::Failed };
                record.note = Some(why);
            })
            .await;
            return Err(error);
        }
        end(guest).await?;
        *guest = None;
        self.change(|record| {
            record.state = State::Suspended;
            record.pid = None;
            record.note = None;
        })
        .await;
        Ok(())
    }

    pub(super) async fn resume(&mut self, guest: &mut Option<Box<dyn Guest>>) -> Result<(), DeployError> {
        let record = self.record.borrow().clone();
        let (State::Suspended, Some(machine), Some(saved)) = (record.state, record.machine, record.saved) else {
            return Err(self.is_not("suspended"));
        };
        let accelerator = self.hypervisor.probe().await?;
        if accelerator != record.accelerator {
            return Err(DeployError::Unfit(format!(
                "it was suspended under {}, and guests run under {} here now",
                record.accelerator.as_str(),
                accelerator.as_str()
            )));
        }
        self.change(|record| record.state = State::Resuming).await;
        let mut loaded = match self.hypervisor.resume(&self.home, &machine, &saved).await {
            Ok(loaded) => loaded,
            Err(error) => {
                let why = note(&format!("it was not resumed: {error}"));
                self.change(|record| {
                    record.state = State::Suspended;
                    record.note = Some(why);
                })
                .await;
                return Err(error.into());
            }
        };
        if let Err(error) = self.go_on(&mut loaded).await {
            let mut loaded = Some(loaded);
            end(&mut loaded).await?;
            let is_saved = self.hypervisor.has_saved(&self.home);
            let why = note(&format!("it was not resumed: {error}"));
            self.change(|record| {
                record.state = if is_saved { State::Suspended } else { State::Failed };
                record.note = Some(why);
            })
            .await;
            return Err(error);
        }
        let pid = loaded.pid();
        *guest = Some(loaded);
        self.change(|record| {
            record.state = State::Running;
            record.saved = None;
            record.note = None;
            record.pid = pid;
        })
        .await;
        Ok(())
    }

    fn is_not(&self, wanted: &'static str) -> DeployError {
        let record = self.record.borrow();
        DeployError::OtherState { instance: record.id.clone(), state: record.state, wanted }
    }

    /// Ends a suspended instance: what its guest had in memory is gone.
    pub(super) async fn give_up_saved(&mut self) -> Result<(), DeployError> {
        self.change(|record| {
            record.state = State::Stopped;
            record.saved = None;
            record.note = Some("it was stopped while it was suspended: what its guest had in memory is gone".into());
        })
        .await;
        self.forget_saved().await
    }
}
