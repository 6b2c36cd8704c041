// What the visitor chooses of the search itself.

import type { Strategy, Target } from "../pkg/blockpruner_web.js";
import { $, choice, element, input, number } from "./elements";
import type { Settings } from "./protocol";
import { STRATEGIES } from "./strategies";

const select = (id: string) => $<HTMLSelectElement>(id);

/** What may be removed, by the values of the form. */
const CHOICES: Record<string, Pick<Settings, "units" | "blockTypes">> = {
  mix: { units: "blocks", blockTypes: "mix" },
  mha: { units: "blocks", blockTypes: "mha" },
  mlp: { units: "blocks", blockTypes: "mlp" },
  pairs: { units: "pairs", blockTypes: "mix" },
  layers: { units: "layers", blockTypes: "mix" },
};

/** How much goes, by the values of the form; the library's numbers are bytes, and shares of one. */
const TARGETS: Record<string, { label: string; field: Partial<HTMLInputElement>; hint: string; of(amount: number): Target }> = {
  remove: {
    label: "How many",
    field: { min: "1", step: "1", value: "", placeholder: "one in six", required: false },
    hint: "Left empty: one in six.",
    of: (remove) => ({ remove }),
  },
  ratio: {
    label: "Percent",
    field: { min: "0", max: "100", value: "20" },
    hint: "Of all parameters: the search ends with the step that reaches it.",
    of: (percent) => ({ ratio: percent / 100 }),
  },
  mib: size("MiB", 2 ** 20),
  gib: size("GiB", 2 ** 30),
  increase: {
    label: "Percent at most",
    field: { min: "0", value: "10" },
    hint: "Of the whole model’s. The search ends before the step that goes beyond; how many it takes is not known before.",
    of: (percent) => ({ maxIncrease: percent / 100 }),
  },
  perplexity: {
    label: "At most",
    field: { min: "1", value: "" },
    hint: "The search ends before the step that goes beyond; how many it takes is not known before. “Measure perplexity only” tells the whole model’s.",
    of: (maxPerplexity) => ({ maxPerplexity }),
  },
};

function size(unit: string, bytes: number): (typeof TARGETS)[string] {
  return {
    label: `${unit} at most`,
    field: { min: "0", value: "" },
    hint: "Of the weights as they are downloaded, with the numbers as they are; of a quantised model as GGUF.",
    of: (amount) => ({ fit: Math.floor(amount * bytes) }),
  };
}

/** The field for the amount becomes that of the chosen target. */
function askAmount(): void {
  const { label, field, hint } = TARGETS[select("target").value]!;
  $("amount-label").textContent = label;
  $("amount-hint").textContent = hint;
  Object.assign(input("amount"), { max: "", step: "any", placeholder: "", required: true, ...field });
}

function chosenTarget(): Target | undefined {
  const amount = number("amount");
  return amount === undefined ? undefined : TARGETS[select("target").value]!.of(amount);
}

function listStrategies(): void {
  $("strategies").append(
    ...Object.entries(STRATEGIES).map(([name, { about }]) => {
      const label = element("label", "", "choice");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "strategy", value: name, checked: name === "exact" });
      const text = document.createElement("span");
      text.append(element("b", name), `: ${about}`);
      label.append(radio, text);
      return label;
    }),
  );
  $("strategies").addEventListener("change", () => {
    const strategy = choice("strategy");
    $("strategy").textContent = strategy;
    $("seed-row").hidden = strategy !== "random";
    // It knows no others.
    const types = select("types");
    types.disabled = strategy === "short-gpt";
    if (types.disabled) types.value = "layers";
  });
}

/** What the form says. */
export function settings(): Settings {
  const strategy = choice("strategy") as Strategy;
  return {
    ...CHOICES[select("types").value]!,
    strategy,
    strategySeed: strategy === "random" ? (number("seed") ?? 0) : undefined,
    target: chosenTarget(),
    window: number("window") ?? 128,
    windows: number("windows"),
  };
}

/** Fields that depend on others. */
export function takeSettings(): void {
  select("target").addEventListener("change", askAmount);
  askAmount();
  listStrategies();
}
