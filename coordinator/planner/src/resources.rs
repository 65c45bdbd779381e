//! Amounts of the things a node has and a pod asks for, each with its unit in its type.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Add, AddAssign, Sub, SubAssign},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// What is left, never below nothing.
            #[must_use]
            pub fn minus(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0).max(0))
            }

            /// As a number to calculate shares with.
            #[allow(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
            pub fn as_f64(self) -> f64 {
                self.0 as f64
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::ZERO, Add::add)
            }
        }
    };
}

amount!(
    /// CPU in thousandths of a core.
    MilliCpu
);
amount!(
    /// Bytes of memory or disk.
    Bytes
);

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 % 1000 == 0 {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, suffix) in [(30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 != 0 && self.0 % (1 << shift) == 0 {
                return write!(f, "{}{suffix}", self.0 >> shift);
            }
        }
        if self.0 >= 10 << 20 {
            write!(f, "{}Mi", self.0 >> 20)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// A share in percent. Policies hold it within 0–100; measured usage may be above.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(pub f64);

impl Percent {
    /// As a factor: 70 % is 0.7.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", (self.0 * 10.0).round() / 10.0)
    }
}

/// What a node offers or a pod requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Disk for writable layers, logs and emptyDirs.
    pub ephemeral_storage: Bytes,
    /// Slots for pods. In a pod's own request always 1 (it takes one slot).
    pub pods: i64,
    /// Extended resources and huge pages, in whole units, by name. Absent is none.
    pub extended: BTreeMap<Arc<str>, i64>,
}

impl Resources {
    /// Everything of `other` added.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        self.pods = self.pods.saturating_add(other.pods);
        if other.extended.is_empty() {
            return;
        }
        for (name, amount) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Everything of `other` taken away; the caller added it before.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu -= other.cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        self.pods = self.pods.saturating_sub(other.pods);
        for (name, amount) in &other.extended {
            let left = self.extended.entry(name.clone()).or_default();
            *left = left.saturating_sub(*amount);
        }
    }

    /// The larger of each, as the containers of one phase against those of another (KEP-753).
    #[must_use]
    pub fn max(mut self, other: &Self) -> Self {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        self.pods = self.pods.max(other.pods);
        for (name, amount) in &other.extended {
            let own = self.extended.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
        self
    }

    /// Whether `request` fits beside `used` into these; the name of the first thing that is short otherwise. What is
    /// not requested is not asked for, even on a node that is overcommitted (kube-scheduler's `NodeResourcesFit`).
    ///
    /// # Errors
    /// The name of the first resource that is short.
    pub fn fits(&self, used: &Self, request: &Self) -> Result<(), &str> {
        if used.pods.saturating_add(request.pods) > self.pods {
            return Err("pods");
        }
        if request.cpu > MilliCpu::ZERO && used.cpu + request.cpu > self.cpu {
            return Err("cpu");
        }
        if request.memory > Bytes::ZERO && used.memory + request.memory > self.memory {
            return Err("memory");
        }
        if request.ephemeral_storage > Bytes::ZERO
            && used.ephemeral_storage + request.ephemeral_storage > self.ephemeral_storage
        {
            return Err("ephemeral-storage");
        }
        Ok(())
    }

    /// The first extended resource of `request` that is short.
    #[inline]
    pub fn short_extended<'r>(&self, used: &Self, request: &'r Self) -> Option<&'r str> {
        if request.extended.is_empty() {
            return None;
        }
        request
            .extended
            .iter()
            .filter(|(_, amount)| **amount > 0)
            .find(|(name, amount)| {
                let have = self.extended.get(*name).copied().unwrap_or(0);
                let taken = used.extended.get(*name).copied().unwrap_or(0);
                taken.saturating_add(**amount) > have
            })
            .map(|(name, _)| name.as_ref())
    }
}
