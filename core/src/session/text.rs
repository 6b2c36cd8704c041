//! A model's view of a text.

use crate::Error;
use crate::model::Checkpoint;
use crate::text::{CalibrationText, Windows};

/// How a text is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowOptions {
    /// Tokens of a window, at least 2. Default: [`crate::model::ModelSpec::default_window`].
    pub window: Option<usize>,
    /// The first so many windows are kept. Default: all.
    pub max_windows: Option<usize>,
}

impl WindowOptions {
    /// Windows of so many tokens.
    pub fn window(mut self, tokens: impl Into<Option<usize>>) -> Self {
        self.window = tokens.into();
        self
    }

    /// The first so many windows.
    pub fn max_windows(mut self, windows: impl Into<Option<usize>>) -> Self {
        self.max_windows = windows.into();
        self
    }
}

impl Checkpoint {
    /// Tokenises a text and cuts it into windows.
    ///
    /// # Errors
    /// A model without a usable tokenizer or so many positions, those of [`Windows::cut`], and a tokenizer that is not the model's.
    pub fn windows(&self, text: &CalibrationText, options: WindowOptions) -> Result<Windows, Error> {
        let window = options.window.unwrap_or_else(|| self.spec.default_window());
        self.spec.check_window(window)?;
        let windows = Windows::cut(text, self.tokenizer()?, window, options.max_windows)?;
        windows.check_vocabulary(self.spec.vocab_size)?;
        Ok(windows)
    }

    /// What to say of windows that are longer than the texts that the model was made for.
    pub fn too_long(&self, windows: &Windows) -> Option<String> {
        let (window, most) = (windows.window, self.spec.max_positions);
        (window > most)
            .then(|| format!("a window of {window} tokens is more than the {most} that the model was made for"))
    }
}
