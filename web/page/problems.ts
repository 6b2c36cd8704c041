// What goes wrong, what is worth knowing, and questions: told where the visitor looks.

import { $, element, number } from "./elements";
import * as format from "./format";
import type { Reply } from "./protocol";

export function complain(message: string, more: string[] = []): void {
  const list = document.createElement("ul");
  list.append(...more.map((line) => element("li", line)));
  $("problem").replaceChildren(element("p", message), ...(more.length > 0 ? [list] : []));
  $("problem").hidden = false;
  $("problem").scrollIntoView({ block: "nearest" });
}

export function allIsWell(): void {
  $("problem").hidden = true;
}

let withdraw: (() => void) | null = null;

/** Asks something; false if the visitor says no, or asks for something else meanwhile. */
export function question({ title, text, yes, no }: { title: string; text: string; yes: string; no: string }): Promise<boolean> {
  withdraw?.();
  for (const [id, words] of [["title", title], ["text", text], ["yes", yes], ["no", no]] as const) $(`question-${id}`).textContent = words;
  $("question").hidden = false;
  $("question").scrollIntoView({ block: "nearest" });
  $("question-no").focus({ preventScroll: true });
  return new Promise((resolve) => {
    const answered = (answer: boolean) => () => {
      $("question").hidden = true;
      withdraw = null;
      resolve(answer);
    };
    withdraw = answered(false);
    $("question-yes").onclick = answered(true);
    $("question-no").onclick = withdraw;
  });
}

/** Takes back a question that has no object any more. */
export function withdrawQuestion(): void {
  withdraw?.();
}

type Trouble = Extract<Reply, { type: "error" }>;

export function tellTrouble(trouble: Trouble): void {
  complain(trouble.message.replace(/; try again, or use another device$/, ""), advice(trouble));
}

/** What would fit where a device's limit is too small: scratch grows with the window. */
function advice(trouble: Trouble): string[] {
  switch (trouble.code) {
    case "too-large": {
      const window = number("window") ?? 128;
      const fits = Math.floor((window * (trouble.limit ?? 0)) / (trouble.bytes ?? 1));
      const limit = `This device takes ${format.bytes(trouble.limit ?? 0)} in one piece.`;
      return [limit, fits >= 2 ? `Windows of ${fits} tokens would fit.` : "Choose a model with smaller layers."];
    }
    case "out-of-memory":
      return ["Choose fewer or shorter windows, or a smaller model, and close other tabs that use the GPU."];
    case "device-lost":
      return [trouble.resumable ? "What was found so far is saved: press Resume to go on." : "Start again."];
    case "internal":
      return ["Reload the page. What was found so far is saved."];
    case "no-device":
      return browsers();
    default:
      return [];
  }
}

export const browsers = () => [
  "Chrome and Edge have WebGPU on Windows, macOS, ChromeOS and Android; on Linux switch on chrome://flags/#enable-unsafe-webgpu and #enable-vulkan.",
  "Safari has it from version 26 on; before, under Develop, Feature Flags, WebGPU.",
  "Firefox has it on Windows and on Macs with Apple silicon; elsewhere set dom.webgpu.enabled in about:config.",
  "Hardware acceleration must be on in the browser’s settings, and the page must come from https or localhost.",
];
