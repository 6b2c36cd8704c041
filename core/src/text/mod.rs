//! Text to token windows.
