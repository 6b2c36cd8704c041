// What `npm pack` and `npm publish` need besides this folder: the built library, and the licences from above.

import { copyFileSync, existsSync } from "node:fs";

const here = (path) => new URL(path, import.meta.url);
if (!existsSync(here("pkg/blockpruner_web_bg.wasm"))) {
  console.error("pkg/ is missing, and with it all that the package is for: build it with `cargo xtask web`, then pack again.");
  process.exit(1);
}
for (const name of ["LICENSE-APACHE", "LICENSE-MIT"]) copyFileSync(here(`../${name}`), here(name));
