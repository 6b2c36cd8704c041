//! Measuring: what a device can do at best, how near the kernels of a forward pass come to it, and how much of the
//! exhaustive search's arithmetic a search did. Measures and counts; knows nothing of files or screens.
//!
//! Times are wall times of work that is repeated until it can be timed, after it has run once. Everything else that the
//! machine does meanwhile is in them, so that only times of one run are worth comparing.

mod device;
mod kernels;
mod search;
mod timing;
mod weights;

pub use device::DeviceRates;
pub use kernels::{DensePass, KernelTime, Rate, kernels};
pub use search::{Dropped, SearchCount, StepCount};
pub use timing::Timing;
pub use weights::WeightRate;
