// The worker's voice.

import type { Reply } from "./protocol";

export function reply(message: Reply): void {
  self.postMessage(message);
}

/** A problem that the library does not know of. */
export class Problem extends Error {
  constructor(readonly code: "busy" | "input", message: string) {
    super(message);
  }
}
