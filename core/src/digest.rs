//! Digests as files and messages show them.

/// The bytes of a digest in hexadecimal.
pub(crate) fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
