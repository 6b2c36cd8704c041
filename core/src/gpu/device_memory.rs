//! How much memory a device has. WebGPU does not tell, so neither does wgpu: the interface below it is asked.

/// Memory that a device computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// How much there is, in bytes: with Vulkan in all, with Metal and DX12 what the system would give to this process.
    pub bytes: u64,
    /// Whether it is the device's own, not also the computer's.
    pub own: bool,
}

impl DeviceMemory {
    /// Asks Vulkan, Metal or DX12; None where nobody tells: in browsers, with GL, and of drivers that run on the CPU, which
    /// may name any figure (Mesa 22's says 2 GiB on every machine).
    pub(super) fn of(adapter: &wgpu::Adapter, kind: wgpu::DeviceType) -> Option<Self> {
        let own = match kind {
            wgpu::DeviceType::Cpu => return None,
            kind => kind == wgpu::DeviceType::DiscreteGpu,
        };
        bytes(adapter).filter(|bytes| *bytes > 0).map(|bytes| Self { bytes, own })
    }
}

// SAFETY of what follows: the adapter is alive, its parts are only read and nothing of it is destroyed or kept.

#[cfg(any(windows, target_os = "linux", target_os = "android"))]
#[allow(unsafe_code, reason = "wgpu offers no other way")]
fn vulkan(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    let memory = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    // Some drivers offer the part that the host can see once more as a small heap of its own.
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    vulkan(adapter)
}

#[cfg(windows)]
#[allow(unsafe_code, reason = "wgpu offers no other way")]
fn bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    let dx12 = || {
        let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
        // The default is the memory that is local to the device.
        Some(adapter.raw_adapter().query_video_memory_info(Default::default()).ok()?.Budget)
    };
    vulkan(adapter).or_else(dx12)
}

#[cfg(target_vendor = "apple")]
#[allow(unsafe_code, reason = "wgpu offers no other way")]
fn bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    use objc2_metal::MTLDevice;
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    Some(adapter.raw_device().recommendedMaxWorkingSetSize())
}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;
    use crate::gpu::adapter::candidates;

    /// A software driver's figure says nothing about the computer, but that it is read tells that the question is right.
    #[test]
    fn vulkan_tells_how_much_memory_there_is() {
        for candidate in pollster::block_on(candidates(&GpuOptions::default())) {
            let (name, kind) = (&candidate.info.name, candidate.info.device_type);
            let told = bytes(&candidate.adapter);
            assert_eq!(told.is_some(), candidate.info.backend != wgpu::Backend::Gl, "{name}");
            assert!(
                told.is_none_or(|bytes| bytes >= candidate.adapter.limits().max_storage_buffer_binding_size),
                "{name}: {told:?}"
            );
            assert_eq!(candidate.memory.is_some(), told.is_some() && kind != wgpu::DeviceType::Cpu, "{name}");
        }
    }
}
