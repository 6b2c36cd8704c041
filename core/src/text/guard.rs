//! A boundary around the `tokenizers` crate: where it panics, an error comes back.
//!
//! What is known to make it panic is refused before (`tokenizer_checks.rs`), which is all that helps in a browser, where a
//! panic ends the program.

use super::TextError;

/// What `call` gives, or its panic as [`TextError::Tokenizer`].
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, TextError>) -> Result<T, TextError> {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
    use std::sync::Once;

    thread_local! {
        static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
    }
    static QUIET: Once = Once::new();

    // A panic that becomes an error is not to be reported as one.
    QUIET.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                report(panic);
            }
        }));
    });
    let outer = IS_GUARDED.replace(true);
    // What the call has borrowed is thrown away with the error, or only read.
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(outer);
    result.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        let reason = format!("a fault in the `tokenizers` library ({})", message.unwrap_or("unknown"));
        Err(TextError::Tokenizer { reason })
    })
}

#[cfg(target_arch = "wasm32")]
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, TextError>) -> Result<T, TextError> {
    call()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guarded(|| Ok(5)).unwrap(), 5);
        let error = guarded::<()>(|| panic!("index {} out of range", 7)).unwrap_err();
        assert!(matches!(error, TextError::Tokenizer { .. }));
        assert!(error.to_string().contains("`tokenizers` library (index 7 out of range)"), "{error}");
    }
}
