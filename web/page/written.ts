// What a model takes as it is written.

import type { ExportOptions, ModelInfo } from "../pkg/blockpruner_web.js";

export type Format = ExportOptions["format"];
export type DType = NonNullable<ExportOptions["dtype"]>;

const BYTES: Record<DType, number> = { bf16: 2, f16: 2, f32: 4 };
const FLOATS = ["BF16", "F16", "F32"];

export const isQuantised = ({ dtypes }: ModelInfo) => Object.keys(dtypes).some((type) => !FLOATS.includes(type));

/** Bytes of the weights, about: of a parameter's share of what was read, or of the chosen type. */
export function written(model: ModelInfo, parametersLeft: number, format: Format, dtype: DType | undefined): number {
  const parameters = format === "hf-zeroed" ? model.parameters : parametersLeft;
  // Only GGUF files keep what is quantised.
  const type = dtype ?? (isQuantised(model) && format !== "gguf" ? "bf16" : undefined);
  return type ? parameters * BYTES[type] : (model.bytes * parameters) / model.parameters;
}
