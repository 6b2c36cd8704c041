// What the visitor's device is called.

/** Drivers that compute on the CPU. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render/i;

const given = ({ info: { vendor, architecture, description } }: GPUAdapter) => [vendor, description || architecture].filter(Boolean).join(" ");

export const isSoftware = (adapter: GPUAdapter): boolean => adapter.info.isFallbackAdapter === true || SOFTWARE.test(given(adapter));

export function nameOf(adapter: GPUAdapter): string {
  const name = given(adapter) || "WebGPU device";
  return isSoftware(adapter) ? `${name}: software (CPU), slow` : name;
}
