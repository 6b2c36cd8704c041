//! `blockpruner devices`.

use blockpruner::gpu::{GpuError, adapters};
use clap::Args;

use crate::args::DeviceArgs;
use crate::screen;

/// Arguments of `devices`.
#[derive(Args)]
pub struct DevicesArgs {
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// List what is left when wgpu offers only what browsers offer
    #[arg(long)]
    strict_webgpu: bool,
}

/// Lists the devices, best first.
pub async fn run(args: &DevicesArgs) -> anyhow::Result<()> {
    let device = DeviceArgs { strict_webgpu: args.strict_webgpu, ..DeviceArgs::default() };
    let found = adapters(&device.options()).await;
    if args.json {
        screen::print_json(&serde_json::json!({ "devices": found }))?;
    }
    if found.is_empty() {
        // Opening says what to install.
        return match blockpruner::gpu::Gpu::open(&device.options()).await {
            Err(error) => Err(error.into()),
            Ok(gpu) => Err(GpuError::Lost { device: gpu.name().into(), reason: "it came and went".into() }.into()),
        };
    }
    if !args.json {
        let mut text = String::new();
        for device in &found {
            let [least, most] = device.subgroup_sizes;
            let subgroups = match (least, most) {
                (0, 0) => "no subgroups".to_string(),
                (least, most) if least == most => format!("subgroups of {least}"),
                (least, most) => format!("subgroups of {least} to {most}"),
            };
            text += &format!(
                "{}: {} ({}, {}, {})\n   tier {}, kernel {}, {subgroups}{}\n   {}bindings up to {}, buffers up to {}, \
                 workgroups of up to {} invocations and {}\n",
                device.index,
                device.name,
                device.kind,
                device.backend,
                device.driver,
                device.tier,
                device.kernel,
                if device.f16 { ", f16 arithmetic" } else { "" },
                device.memory_bytes.map(|memory| screen::bytes(memory) + " of memory, ").unwrap_or_default(),
                screen::bytes(device.max_binding_bytes),
                screen::bytes(device.max_buffer_bytes),
                device.max_workgroup_invocations,
                screen::bytes(device.max_workgroup_bytes.into()),
            );
        }
        screen::print_text(&text)?;
    }
    Ok(())
}
