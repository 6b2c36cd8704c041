//! The driver's compiled shaders, kept in the user's cache folder from one run to the next. Nothing here is an error: without
//! them, shaders are compiled again.

use std::fs;
use std::path::PathBuf;

use blockpruner::export::write_atomically;
use blockpruner::gpu::Gpu;

fn path(key: &str) -> Option<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "blockpruner")?;
    let path = folders.cache_dir().join(format!("{key}.bin"));
    // Something else there is left alone: a pipe would be waited for.
    (path.is_file() || !path.exists()).then_some(path)
}

/// What was kept for this kind of device.
pub fn load(key: &str) -> Option<Vec<u8>> {
    fs::read(path(key)?).ok()
}

/// Keeps what the device has compiled, unless that is known already.
pub fn save(gpu: &Gpu) {
    let Some((key, data)) = gpu.pipeline_cache() else { return };
    let Some(path) = path(&key) else { return };
    if load(&key).is_some_and(|known| known == data) {
        return;
    }
    let kept = path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok());
    if let (true, Err(error)) = (kept, write_atomically(&path, &data)) {
        tracing::info!("the compiled shaders are not kept: {error}");
    }
}
