//! Faults of a device at chosen moments, for tests (feature `fault-injection`).

use std::cell::Cell;

use super::device::Failure;
use super::{Gpu, GpuError};

/// Where a device can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// The device is lost before work is submitted, uploads included.
    Submit,
    /// The device is lost before memory is mapped for reading.
    ReadBack,
    /// There is no memory for a buffer or a texture.
    Allocation,
}

/// Counts what passes the points of one device, and says when one fails.
pub(super) struct Faults {
    failure: Failure,
    device: String,
    passed: [Cell<u64>; 3],
    planned: Cell<Option<(FaultPoint, u64)>>,
}

impl Faults {
    pub(super) fn new(failure: Failure, device: String) -> Self {
        Self { failure, device, passed: Default::default(), planned: Cell::new(None) }
    }

    /// Counts a passage; whether it is the one that fails.
    pub(super) fn strikes(&self, point: FaultPoint) -> bool {
        let passed = &self.passed[point as usize];
        passed.set(passed.get() + 1);
        self.planned.get() == Some((point, passed.get()))
    }

    /// What the driver's report would do.
    pub(super) fn exhaust_memory(&self) {
        if let Ok(mut first) = self.failure.lock() {
            let (device, reason) = (self.device.clone(), "a fault that a test asked for".to_string());
            first.get_or_insert(GpuError::OutOfMemory { device, reason });
        }
    }
}

impl Gpu {
    /// From now on, lets the `n`-th passage of `point` fail, counted from 1.
    #[doc(hidden)]
    pub fn fail_at(&self, point: FaultPoint, n: u64) {
        let faults = &self.raw.faults;
        faults.planned.set(Some((point, faults.passed[point as usize].get() + n)));
    }

    /// How often `point` was passed since the device was opened.
    #[doc(hidden)]
    pub fn passed(&self, point: FaultPoint) -> u64 {
        self.raw.faults.passed[point as usize].get()
    }
}
