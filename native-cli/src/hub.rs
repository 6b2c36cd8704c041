//! Models of the Hugging Face hub: which names are theirs, and how their download is shown.

use std::path::{Path, PathBuf};

use blockpruner::Error;
use blockpruner::hub::{Hub, HubError, HubOptions, ModelName};
use blockpruner::model::Checkpoint;

use crate::progress::Downloading;
use crate::screen::{bytes, message};

/// The model of the hub that is meant, if it is one: nothing is there under its name.
pub fn name(model: &str) -> Option<ModelName> {
    ModelName::parse(model).filter(|_| !Path::new(model).exists())
}

/// Downloads a model unless that was done before, and says where it is.
pub async fn download(name: &ModelName) -> Result<PathBuf, HubError> {
    let hub = Hub::new(HubOptions::from_env()?);
    let mut shown = Downloading::new();
    let path = hub.fetch(name, &mut |progress| shown.tell(progress)).await;
    let arrived = shown.finish();
    let path = path?;
    if arrived > 0 {
        message(format!("downloaded {}, kept in {}", bytes(arrived), path.display()));
    }
    Ok(path)
}

/// Opens a model whose weights stay where they are.
pub async fn outline(name: &ModelName) -> Result<Checkpoint, Error> {
    let hub = Hub::new(HubOptions::from_env()?);
    let mut shown = Downloading::new();
    hub.open(name, &mut |progress| shown.tell(progress)).await
}
