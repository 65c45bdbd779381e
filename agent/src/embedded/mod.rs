//! The world of an agent in memory: what the simulator and the tests give it in place of a machine.

mod kubelet;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use smartscale_proto::v1::enrol_request::Proof;

pub use kubelet::{Call, EmbeddedKubelet, Verb};

use crate::{
    enrol::Attestor,
    error::Failure,
    health::{Reading, Vitals},
    k3s::{DropIn, K3sFiles},
    machine::{Machine, MachineIdentity},
    notices::{Notice, NoticeSource},
    secrets::{Secret, Secrets, join::JoinToken},
    state::StateFolder,
    units::Units,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder in memory. It outlives an agent whose death is played.
#[derive(Debug, Default)]
pub struct MemoryFolder(Mutex<BTreeMap<String, Vec<u8>>>);

impl StateFolder for MemoryFolder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(lock(&self.0).get(name).cloned())
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        lock(&self.0).insert(name.to_owned(), content.to_vec());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.0).remove(name);
        Ok(())
    }
}

/// A machine that may be unknown for a while.
#[derive(Debug, Default)]
pub struct EmbeddedMachine(Mutex<Option<Machine>>);

impl EmbeddedMachine {
    /// Is `machine`.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self(Mutex::new(Some(machine)))
    }

    /// Becomes another machine, or an unknown one.
    pub fn set(&self, machine: Option<Machine>) {
        *lock(&self.0) = machine;
    }
}

#[async_trait]
impl MachineIdentity for EmbeddedMachine {
    async fn identity(&self) -> Result<Machine, Failure> {
        lock(&self.0)
            .clone()
            .ok_or_else(|| Failure::because("the metadata service does not answer"))
    }
}

/// Notices that stand until they are taken back.
#[derive(Debug, Default)]
pub struct EmbeddedNotices(Mutex<Vec<Notice>>);

impl EmbeddedNotices {
    /// Announces `notice`.
    pub fn announce(&self, notice: Notice) {
        lock(&self.0).push(notice);
    }
}

#[async_trait]
impl NoticeSource for EmbeddedNotices {
    async fn standing(&self) -> Result<Vec<Notice>, Failure> {
        Ok(lock(&self.0).clone())
    }
}

/// Secrets by name.
#[derive(Debug, Default)]
pub struct EmbeddedSecrets(Mutex<BTreeMap<String, Secret>>);

impl EmbeddedSecrets {
    /// Keeps `value` under `name`.
    pub fn set(&self, name: &str, value: &str) {
        lock(&self.0).insert(name.to_owned(), Secret::new(value.to_owned()));
    }
}

#[async_trait]
impl Secrets for EmbeddedSecrets {
    async fn secret(&self, name: &str, _zone: &str) -> Result<Secret, Failure> {
        lock(&self.0)
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::because(format!("there is no secret {name}")))
    }
}

/// Services and their states; each start and stop is remembered.
#[derive(Debug, Default)]
pub struct EmbeddedUnits(Mutex<(BTreeMap<String, String>, Vec<String>)>);

impl EmbeddedUnits {
    /// The calls so far: `start UNIT`, `stop UNIT`.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        lock(&self.0).1.clone()
    }

    /// Whether `unit` runs.
    #[must_use]
    pub fn runs(&self, unit: &str) -> bool {
        lock(&self.0).0.get(unit).is_some_and(|state| state == "active")
    }

    fn set(&self, unit: &str, verb: &str, state: &str) {
        let mut guard = lock(&self.0);
        guard.0.insert(unit.to_owned(), state.to_owned());
        guard.1.push(format!("{verb} {unit}"));
    }
}

#[async_trait]
impl Units for EmbeddedUnits {
    async fn start(&self, unit: &str) -> Result<(), Failure> {
        self.set(unit, "start", "active");
        Ok(())
    }

    async fn stop(&self, unit: &str) -> Result<(), Failure> {
        self.set(unit, "stop", "inactive");
        Ok(())
    }

    async fn active_state(&self, unit: &str) -> Result<String, Failure> {
        Ok(lock(&self.0)
            .0
            .get(unit)
            .cloned()
            .unwrap_or_else(|| "inactive".to_owned()))
    }
}

/// K3s' files.
#[derive(Debug, Default)]
pub struct EmbeddedFiles(Mutex<(Option<JoinToken>, Option<DropIn>)>);

impl EmbeddedFiles {
    /// The drop-in, once it is written.
    #[must_use]
    pub fn drop_in(&self) -> Option<DropIn> {
        lock(&self.0).1.clone()
    }
}

impl K3sFiles for EmbeddedFiles {
    fn write_token(&self, token: &JoinToken) -> io::Result<PathBuf> {
        lock(&self.0).0 = Some(token.clone());
        Ok(PathBuf::from("/run/smartscale/k3s-token"))
    }

    fn write_drop_in(&self, drop_in: &DropIn) -> io::Result<bool> {
        let mut guard = lock(&self.0);
        let changed = guard.1.as_ref() != Some(drop_in);
        guard.1 = Some(drop_in.clone());
        Ok(changed)
    }
}

/// Vital signs as they were set.
#[derive(Debug, Default)]
pub struct EmbeddedVitals(Mutex<Reading>);

impl EmbeddedVitals {
    /// Sets what is read from now on.
    pub fn set(&self, reading: Reading) {
        *lock(&self.0) = reading;
    }
}

#[async_trait]
impl Vitals for EmbeddedVitals {
    async fn read(&self) -> Reading {
        lock(&self.0).clone()
    }

    async fn kubelet_healthy(&self) -> Option<bool> {
        Some(true)
    }

    async fn runtime_healthy(&self) -> Option<bool> {
        Some(true)
    }
}

/// A one-time secret that is known from the start.
#[derive(Debug)]
pub struct FixedToken(Secret);

impl FixedToken {
    /// Proves with `secret`.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(Secret::new(secret.to_owned()))
    }
}

#[async_trait]
impl Attestor for FixedToken {
    async fn prove(&self, _machine: &Machine, _challenge: &[u8], _request: &[u8]) -> Result<Proof, Failure> {
        Ok(crate::enrol::token_proof(&self.0))
    }
}
