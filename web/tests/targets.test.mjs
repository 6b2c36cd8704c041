// Searches for other targets than a number of blocks, and by other strategies than the published one: as the native program's.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PATIENCE, SITE, close, launch, native, open, serve, shot } from "./harness.mjs";

let site, browser, page, folder;
before(async () => {
  site = await serve({ "": SITE });
  browser = await launch();
  folder = mkdtempSync(join(tmpdir(), "blockpruner-web-"));
  page = await open(browser, { viewport: { width: 390, height: 844 }, acceptDownloads: true });
  await page.goto(site.url);
  await page.fill("#window", "32");
  await page.fill("#windows", "1");
  await page.waitForSelector("#start:enabled");
});
after(async () => {
  await browser?.close();
  site?.close();
  if (folder) rmSync(folder, { recursive: true });
});

/** The plan of the search that was asked for, when it has come to its end. */
async function found() {
  await page.waitForSelector("#result:visible, #problem:visible", { timeout: PATIENCE });
  assert.ok(await page.isHidden("#problem"), await page.textContent("#problem"));
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("#plan")]);
  return JSON.parse(readFileSync(await file.path()));
}

/** Compares a plan with that of the native program. */
async function agrees(plan, args) {
  const text = ["--calibration", "builtin:sample", "--window", "32", "--max-windows", "1"];
  const out = ["--out", mkdtempSync(join(folder, "native-"))];
  const expected = await native(["prune", "--model", "builtin:tiny", ...text, ...args, ...out], { kernel: plan.device.kernel });
  assert.deepEqual(plan.steps.map(({ removed }) => removed), expected.steps.map(({ removed }) => removed));
  assert.deepEqual(plan.settings, expected.settings);
  assert.equal(plan.beyond?.removed, expected.beyond?.removed);
  for (const [index, step] of plan.steps.entries()) {
    close(step.perplexity, expected.steps[index].perplexity, 1e-5, `perplexity of step ${index + 1}`);
    close(step.value, expected.steps[index].value, 1e-4, `value of step ${index + 1}`);
  }
}

test("by cosine distance, for as long as perplexity rises by little", async () => {
  await page.selectOption("#target", "increase");
  await page.fill("#amount", "10");
  await page.click("#advanced summary");
  await page.check('input[name="strategy"][value="cosine"]');
  await page.click("#start");
  const plan = await found();
  await shot(page, "phone-targets");
  assert.ok(plan.beyond);
  const same = agrees(plan, ["--max-increase", "10%", "--strategy", "cosine"]);
  const count = plan.steps.length;
  assert.equal(await page.textContent("#f-step"), `${count} of ${count}`);
  const { removed } = plan.beyond;
  assert.match(await page.textContent("#announce"), new RegExp(`^Step ${count + 1} would remove ${removed} and bring perplexity to [\\d.]+, beyond the goal: it stays\\.$`));
  const searched = await page.textContent("#searched");
  assert.match(searched, new RegExp(`^${count} of 24 blocks removed in .*, chosen by the strategy cosine on 31 predicted tokens `));
  assert.match(searched, new RegExp(`The goal was a perplexity that is at most 10\\.0 % higher\\. Without ${removed} as well, perplexity would be [\\d.]+: it stays\\.$`));
  // What was measured is told, though it is no perplexity.
  assert.equal(await page.textContent("#ranking-value"), "Cosine distance");
  const labels = await page.locator("#map .cell").evaluateAll((cells) => cells.map((cell) => cell.ariaLabel));
  assert.equal(labels.filter((label) => /^m\w\w:\d+, cosine distance [\d.e-]+ across it$/.test(label)).length, 24 - count);
  // In a step that measures no more than the perplexity of what goes, as in the one that measured, the lowest leads.
  const [first] = await page.locator("#ranking tbody tr").allTextContents();
  assert.equal(first, `${removed}${plan.beyond.value.toPrecision(4)}`);
  assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 390);
  await same;

  // It goes on from there, by number.
  await page.click("#extend-go");
  const further = await found();
  assert.deepEqual(further.steps.map((step) => step.removed), [...plan.steps, plan.beyond].map((step) => step.removed));
  assert.equal(await page.textContent("#f-step"), `${count + 1} of ${count + 1}`);
});

test("by the published search, until the model fits, with a pause and a stop", async () => {
  await page.check('input[name="strategy"][value="exact"]');
  await page.selectOption("#types", "mha");
  await page.selectOption("#target", "mib");
  await page.fill("#amount", "4.9");
  await page.evaluate(() => {
    globalThis.announced = [];
    const announce = document.querySelector("#announce");
    new MutationObserver(() => globalThis.announced.push(announce.textContent)).observe(announce, { childList: true });
  });
  await page.click("#start");
  await page.waitForSelector("#pause:enabled");
  await page.click("#pause");
  await page.waitForFunction(() => document.querySelector("#pause").textContent === "Continue");
  await page.click("#stop");
  await page.waitForSelector("#saved:visible");
  assert.match(await page.textContent("#saved-text"), /, \d+ blocks? removed, for weights of at most 4\.9 MiB, saved .* attention blocks by 1 window of 32 tokens/s);
  assert.ok(await page.isHidden("#saved-remove"));
  await page.click("#resume");
  const plan = await found();
  const announced = await page.evaluate(() => globalThis.announced.filter((words) => /^Step/.test(words)));
  assert.equal(announced.length, plan.steps.length);
  for (const [index, words] of announced.entries()) assert.match(words, new RegExp(`^Step ${index + 1} of about \\d+: ${plan.steps[index].removed} removed, perplexity [\\d.]+\\.$`));
  assert.match(await page.textContent("#searched"), / The goal was weights of at most 4\.9 MiB\.$/);
  const most = Math.floor(4.9 * 2 ** 20);
  assert.ok(plan.steps.at(-1).bytes <= most && plan.steps.at(-2).bytes > most);
  await agrees(plan, ["--fit", "4.9MiB", "--block-types", "mha"]);
});

test("what cannot be is said", async () => {
  const problem = async (target, amount) => {
    await page.selectOption("#target", target);
    await page.fill("#amount", amount);
    await page.click("#start");
    await page.waitForSelector("#problem:visible");
    await page.waitForSelector("#start:enabled");
    return page.textContent("#problem");
  };
  assert.match(await problem("gib", "1"), /nothing has to be removed: the whole model takes \d+ bytes/);
  assert.match(await problem("ratio", "99"), /cannot remove 99\.0 % of the parameters/);
  await page.check('input[name="strategy"][value="random"]');
  assert.match(await problem("perplexity", "1"), /^Nothing can go: without mha:\d+, the first that would, perplexity is [\d.]+\. Allow more\.$/);
  assert.ok(await page.isHidden("#result"));
  // A share has to be given, where the number of blocks can be left to the page.
  await page.fill("#amount", "");
  assert.equal(await page.evaluate(() => document.querySelector("#setup").checkValidity()), false);
  await page.selectOption("#target", "remove");
  assert.equal(await page.evaluate(() => document.querySelector("#setup").checkValidity()), true);
});
