//! The driver's compiled shaders, to be kept from one run to the next. Only Vulkan has such a cache, and nothing here
//! touches a file: the caller keeps the bytes.

use sha2::{Digest, Sha256};

/// Bytes of the digest in front of the driver's.
const DIGEST: usize = 32;

/// Where a device's cache is kept: None where the backend has none.
pub(super) fn key(info: &wgpu::AdapterInfo) -> Option<String> {
    wgpu::util::pipeline_cache_key(info)
}

/// A cache with the contents that [`data`] returned once; anything else is as good as nothing.
pub(super) async fn create(device: &wgpu::Device, kept: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let whole = kept.and_then(|kept| {
        let (digest, data) = kept.split_at_checked(DIGEST)?;
        (Sha256::digest(data).as_slice() == digest).then_some(data)
    });
    if let Some(data) = whole
        && let Some(cache) = create_with(device, Some(data)).await
    {
        return Some(cache);
    }
    create_with(device, None).await
}

async fn create_with(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    // Data of another device or driver is reported as an error, but it is none.
    let errors = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
    // SAFETY: wgpu asks for data that `PipelineCache::get_data` returned. The digest, which only `data` below puts in
    // front, shows that it is that and undamaged; wgpu itself checks that device and driver are the same.
    #[allow(unsafe_code, reason = "wgpu offers no other way")]
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    match errors.pop().await {
        None => Some(cache),
        Some(error) => {
            tracing::info!("the kept pipeline cache is not used: {error}");
            None
        }
    }
}

/// What to keep.
pub(super) fn data(cache: &wgpu::PipelineCache) -> Option<Vec<u8>> {
    let data = cache.get_data()?;
    Some([Sha256::digest(&data).as_slice(), &data].concat())
}
