// The package as npm would publish it, in a new project of TypeScript and Vite: the README's example is checked by the strictest
// compiler, bundled, and run.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PATIENCE, ROOT, TINY, close, launch, native, open, serve } from "./harness.mjs";

const WEB = join(ROOT, "web");
const NPM = process.platform === "win32" ? "npm.cmd" : "npm";

let project, files;
before(() => {
  project = mkdtempSync(join(tmpdir(), "blockpruner-package-"));
  const packed = execFileSync(NPM, ["pack", "--json", "--silent", "--pack-destination", project], { cwd: WEB, encoding: "utf8" });
  const [{ filename, files: contents }] = JSON.parse(packed.slice(packed.indexOf("[")));
  files = contents.map(({ path }) => path);
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "someone-elses", private: true, type: "module" }));
  // It depends on nothing, so nothing is fetched.
  execFileSync(NPM, ["install", "--offline", "--no-audit", "--no-fund", join(project, filename)], { cwd: project, stdio: "ignore" });
});
after(() => project && rmSync(project, { recursive: true }));

const node = (program, args) => {
  try {
    execFileSync(process.execPath, [join(WEB, "node_modules", program), ...args], { cwd: project, encoding: "utf8" });
  } catch (error) {
    throw new Error(`${program} ${args.join(" ")}:\n${error.stdout}${error.stderr}`);
  }
};

test("the tarball holds the library, its types, its licences and an example, and nothing else", () => {
  for (const path of ["pkg/blockpruner_web.js", "pkg/blockpruner_web.d.ts", "pkg/blockpruner_web_bg.wasm", "README.md", "LICENSE-APACHE", "LICENSE-MIT", "example/worker.js"]) {
    assert.ok(files.includes(path), `${path} is not among ${files}`);
  }
  assert.deepEqual(files.filter((path) => !/^(pkg\/|example\/|README\.md$|LICENSE-|package\.json$)/.test(path)), []);
});

test("without the built library nothing is packed, and the message says what to do", () => {
  const bare = mkdtempSync(join(tmpdir(), "blockpruner-bare-"));
  copyFileSync(join(WEB, "prepack.mjs"), join(bare, "prepack.mjs"));
  const { status, stderr } = spawnSync(process.execPath, [join(bare, "prepack.mjs")], { encoding: "utf8" });
  rmSync(bare, { recursive: true });
  assert.equal(status, 1);
  assert.match(stderr, /pkg\/ is missing.*cargo xtask web/s);
});

test("the README's example is sound TypeScript, is bundled, and prunes", async () => {
  const [, example] = /```ts\n(.*?)```/s.exec(readFileSync(join(project, "node_modules/blockpruner/README.md"), "utf8"));
  const placeholder = "https://example.org/models/tiny/";
  assert.ok(example.includes(placeholder));
  mkdirSync(join(project, "src"));
  // Each browser run has its own address of the model.
  const served = example.replace(`"${placeholder}"`, 'new URL("/tiny/", location.href).href');
  writeFileSync(join(project, "src/main.ts"), `${served}\nconsole.log("the end");\n`);
  writeFileSync(join(project, "index.html"), '<!doctype html><title>Example</title><link rel="icon" href="data:," /><script type="module" src="/src/main.ts"></script>');
  const compilerOptions = {
    target: "ES2022", module: "ESNext", moduleResolution: "bundler", lib: ["ES2023", "DOM"], types: [],
    strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, skipLibCheck: false, noEmit: true,
  };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["src"] }));
  node("typescript/bin/tsc", ["--project", "."]);
  node("vite/bin/vite.js", ["build", "--logLevel", "warn"]);

  const site = await serve({ "": join(project, "dist"), tiny: TINY });
  const browser = await launch();
  try {
    const page = await open(browser);
    const [lines, problems] = [[], []];
    const ended = new Promise((resolve) => {
      page.on("console", (message) => {
        // But for files that a model may have and this one has not, on a server that does not list them.
        if (message.type() !== "error") lines.push(message.text());
        else if (!/404/.test(message.text())) problems.push(message.text());
        if (message.text() === "the end") resolve();
      });
      page.on("pageerror", (error) => resolve(problems.push(error.message)));
    });
    await page.goto(site.url);
    await Promise.race([ended, new Promise((_, reject) => setTimeout(reject, PATIENCE, new Error("it does not end")).unref())]);
    assert.deepEqual(problems, []);
    assert.equal(lines.at(0), "open");

    const without = lines.flatMap((line) => (/^without (m[hl][ap]:\d+) /.exec(line) ?? []).slice(1));
    assert.equal(without.length, 2, lines.join("\n"));
    const text = ["--text", "builtin:sample", "--window", "64", "--max-windows", "1"];
    const score = (blocks) => native(["perplexity", "--model", "builtin:tiny", ...text, ...(blocks.length > 0 ? ["--without", blocks.join(",")] : [])], { kernel: "panel" });
    const said = lines.filter((line) => /^(dense|without)/.test(line)).map((line) => Number(line.split(" ").at(-1)));
    for (const [step, perplexity] of said.entries()) close(perplexity, (await score(without.slice(0, step))).perplexity, 1e-5, `after ${step} blocks`);
    const continued = await native(["generate", "--model", "builtin:tiny", "--prompt", "In the beginning", "--max-tokens", "16", "--without", without.join(",")], { kernel: "panel" });
    assert.equal(lines.at(-2), `continued ${continued.text}`);
  } finally {
    await browser.close();
    site.close();
  }
});

test("the example in the tarball prunes in a worker, and stops", async () => {
  const site = await serve({ "": join(project, "node_modules/blockpruner") });
  const browser = await launch();
  try {
    const page = await open(browser);
    await page.goto(`${site.url}/example/`);
    await page.setInputFiles("#folder", TINY);
    const says = (line) => page.waitForFunction((line) => new RegExp(line).test(document.querySelector("#log").textContent), line, { timeout: PATIENCE });
    await says("without m[hl][ap]:");
    await page.click("#stop");
    await says("AbortError");
    await page.setInputFiles("#folder", TINY);
    await says("done: 2 blocks removed");
  } finally {
    await browser.close();
    site.close();
  }
});
