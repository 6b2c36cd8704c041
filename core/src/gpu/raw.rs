//! wgpu's device and queue: the one place where memory is allocated, work submitted, and memory mapped for reading. Tests
//! make these fail here.

#[cfg(feature = "fault-injection")]
use super::fault::{FaultPoint, Faults};

#[derive(Clone)]
pub(super) struct Raw {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    #[cfg(feature = "fault-injection")]
    pub faults: std::rc::Rc<Faults>,
}

impl Raw {
    pub(super) fn buffer(&self, descriptor: &wgpu::BufferDescriptor<'_>) -> wgpu::Buffer {
        #[cfg(feature = "fault-injection")]
        if self.faults.strikes(FaultPoint::Allocation) {
            self.faults.exhaust_memory();
            // Without a use it is as invalid as one that there is no memory for.
            let invalid = wgpu::BufferDescriptor { usage: wgpu::BufferUsages::empty(), ..descriptor.clone() };
            return self.device.create_buffer(&invalid);
        }
        self.device.create_buffer(descriptor)
    }

    pub(super) fn texture(&self, descriptor: &wgpu::TextureDescriptor<'_>) -> wgpu::Texture {
        #[cfg(feature = "fault-injection")]
        if self.faults.strikes(FaultPoint::Allocation) {
            self.faults.exhaust_memory();
            let invalid = wgpu::TextureDescriptor { usage: wgpu::TextureUsages::empty(), ..descriptor.clone() };
            return self.device.create_texture(&invalid);
        }
        self.device.create_texture(descriptor)
    }

    pub(super) fn submit(&self, work: impl IntoIterator<Item = wgpu::CommandBuffer>) -> wgpu::SubmissionIndex {
        #[cfg(feature = "fault-injection")]
        if self.faults.strikes(FaultPoint::Submit) {
            self.device.destroy();
        }
        self.queue.submit(work)
    }

    pub(super) fn map_for_reading(
        &self,
        buffer: &wgpu::Buffer,
        mapped: impl FnOnce(Result<(), wgpu::BufferAsyncError>) + wgpu::WasmNotSend + 'static,
    ) {
        #[cfg(feature = "fault-injection")]
        if self.faults.strikes(FaultPoint::ReadBack) {
            self.device.destroy();
        }
        buffer.slice(..).map_async(wgpu::MapMode::Read, mapped);
    }
}
