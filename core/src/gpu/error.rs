//! What a device can do wrong.

/// Errors of the device layer. Each message says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// wgpu found no adapter at all, or none that can run compute shaders.
    #[error("no usable GPU adapter was found. {advice}")]
    NoAdapter {
        /// What to install on this system.
        advice: String,
    },
    /// `--device` names nothing that is here.
    #[error("no device matches `{wanted}`; available: {available}")]
    NoSuchDevice {
        /// What was asked for.
        wanted: String,
        /// Indices and names.
        available: String,
    },
    /// A forced tier or kernel does not run on the chosen device.
    #[error("{wanted} cannot run on {device}: {reason}")]
    Unsuitable {
        /// The tier or kernel.
        wanted: String,
        /// The adapter's name.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// The driver refused to open the device.
    #[error("cannot open {device}: {reason}")]
    Open {
        /// The adapter's name.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// A kernel computes other values than its CPU twin, and there is no other to fall back to.
    #[error(
        "{device} ({driver}) cannot be trusted: {reason}; install another version of its driver, or use another device or \
         kernel"
    )]
    SelfTest {
        /// The adapter's name.
        device: String,
        /// Driver and version.
        driver: String,
        /// Which kernel differs where, by how much.
        reason: String,
    },
    /// One buffer or texture is larger than the device allows.
    #[error(
        "{what} needs {bytes} bytes in one piece, but {device} allows {limit}; use shorter windows or another device"
    )]
    TooLarge {
        /// What it is for.
        what: String,
        /// The adapter's name.
        device: String,
        /// Needed.
        bytes: u64,
        /// Allowed.
        limit: u64,
    },
    /// Device memory is exhausted.
    #[error(
        "out of device memory on {device}: {reason}; use shorter or fewer windows, a smaller model or another device"
    )]
    OutOfMemory {
        /// The adapter's name.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// The device went away: driver reset, watchdog, unplugged, or the page was suspended.
    #[error("the device {device} was lost: {reason}; try again, or use another device")]
    Lost {
        /// The adapter's name.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// The driver failed at something that it should be able to do, such as compiling a shader.
    #[error("the driver of {device} failed: {reason}; install another version of it, or use another device or kernel")]
    Driver {
        /// The adapter's name.
        device: String,
        /// wgpu's words.
        reason: String,
    },
    /// wgpu rejected what this library asked for.
    #[error("{device} rejected a command: {reason}; this is a bug in blockpruner, please report it")]
    Validation {
        /// The adapter's name.
        device: String,
        /// wgpu's words.
        reason: String,
    },
}
