// Searches that are interrupted: by the visitor, by a reload, by the device, by another tab, by a full disk.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { PATIENCE, essence, launch, servePatched } from "./harness.mjs";

/** Lets a test reach the worker's devices, as a driver reset would. */
const PATCH = `
  const requestDevice = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const device = await requestDevice.apply(this, args);
    (globalThis.devices ??= []).push(device);
    return device;
  };
`;

let site, browser;
before(async () => {
  site = await servePatched(PATCH);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  site?.close();
});

async function visit(context) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(site.url);
  await page.fill("#window", "32");
  await page.fill("#windows", "1");
  await page.fill("#amount", "3");
  await page.selectOption("#types", "mha");
  return page;
}

async function planOf(page) {
  await page.waitForSelector("#result:visible", { timeout: PATIENCE });
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("#plan")]);
  return essence(JSON.parse(readFileSync(await file.path())));
}

const stepDone = (page, count) => page.waitForFunction((count) => document.querySelectorAll("#map .gone").length >= count, count, { timeout: PATIENCE });

let whole;
test("pause, continue, stop and resume end as a search that was never interrupted", async () => {
  const context = await browser.newContext({ acceptDownloads: true });
  const page = await visit(context);
  await page.click("#start");
  whole = await planOf(page);
  assert.equal(whole.steps.length, 3);
  assert.ok(await page.isHidden("#saved"));

  await page.click("#start");
  await page.waitForSelector("#pause:enabled");
  await page.click("#pause");
  await page.waitForFunction(() => document.querySelector("#pause").textContent === "Continue");
  const frozen = await page.textContent("#f-step");
  await page.waitForTimeout(1500);
  assert.equal(await page.textContent("#f-step"), frozen);
  await page.click("#pause");
  await stepDone(page, 1);
  await page.click("#stop");
  await page.waitForSelector("#saved:visible");
  assert.match(await page.textContent("#saved-text"), /the built-in model, [12] of 3 blocks removed.*attention blocks by 1 window of 32 tokens of the built-in sample/s);
  // What was found by then can be had ..
  const soFar = await planOf(page);
  assert.ok(soFar.steps.length === 1 || soFar.steps.length === 2);
  assert.deepEqual(soFar.steps, whole.steps.slice(0, soFar.steps.length));
  assert.match(await page.textContent("#searched"), /^Stopped with [12] of 24 blocks removed, chosen by 31 predicted tokens/);
  assert.match(await page.textContent("#result-notes"), /31 predicted tokens.*2000/);
  await page.check('#steps input[value="1"]');
  const [zip] = await Promise.all([page.waitForEvent("download"), page.click("#zip")]);
  assert.equal(zip.suggestedFilename(), "tiny-pruned-1.zip");
  // .. and is not lost to another search unless the visitor says so.
  await page.click("#start");
  await page.waitForSelector("#question:visible");
  assert.match(await page.textContent("#question"), /Replace the unfinished search.*[12] of 3 blocks/s);
  await page.click("#question-no");
  assert.ok(await page.isVisible("#result"));
  await page.click("#resume");
  assert.deepEqual(await planOf(page), whole);
  // A finished one can go on, too.
  await page.fill("#extend-remove", "4");
  await page.click("#extend-go");
  const further = await planOf(page);
  assert.equal(further.steps.length, 4);
  assert.deepEqual(further.steps.slice(0, 3), whole.steps);
  await context.close();
});

test("an unfinished search is replaced when the visitor says so, and nothing is lost by stopping early", async () => {
  const context = await browser.newContext({ acceptDownloads: true });
  const page = await visit(context);
  await page.click("#start");
  await page.click("#stop");
  await page.waitForFunction(() => /^Stopped/.test(document.querySelector("#status").textContent));
  assert.ok(await page.isHidden("#result"));
  await page.click("#start");
  await stepDone(page, 1);
  await page.click("#stop");
  await page.waitForSelector("#result:visible");
  await page.click("#start");
  await page.click("#question-yes");
  assert.deepEqual(await planOf(page), whole);
  await context.close();
});

test("a run that takes longer than the page promises is asked about first", async () => {
  const page = await visit(browser);
  await page.fill("#windows", "");
  await page.fill("#window", "512");
  await page.fill("#amount", "20");
  await page.selectOption("#types", "mix");
  await page.click("#start");
  await page.waitForSelector("#question:visible");
  assert.match(await page.textContent("#question-text"), /Removing 20 blocks, chosen by 1 window of 512 tokens, takes about \d+ min/);
  await page.click("#question-no");
  await page.waitForSelector("#start:enabled");
  assert.ok(await page.isHidden("#run"));
  assert.ok(await page.isHidden("#saved"));
  await page.close();
});

/** Makes the saved search what the page has saved before there was a choice of units, strategies and targets. */
async function ageSaved(page) {
  await page.evaluate(async () => {
    const request = (request) => new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: () => reject(request.error) }));
    const db = await request(indexedDB.open("blockpruner"));
    const jobs = db.transaction("jobs", "readwrite").objectStore("jobs");
    const job = await request(jobs.get("unfinished"));
    const { target, blockTypes, window, windows } = job.settings;
    await request(jobs.put({ ...job, settings: { remove: target.remove, blockTypes, window, windows } }, "unfinished"));
    db.close();
  });
}

test("a reload in the middle loses nothing, nor does a newer page", async () => {
  const context = await browser.newContext({ acceptDownloads: true });
  const page = await visit(context);
  await page.click("#start");
  await stepDone(page, 1);
  await page.waitForTimeout(300);
  await page.reload();
  await page.waitForSelector("#saved:visible");
  await ageSaved(page);
  await page.reload();
  await page.waitForSelector("#saved:visible");
  assert.match(await page.textContent("#saved-text"), /of 3 blocks removed, .*attention blocks by 1 window of 32 tokens/s);
  assert.equal(await page.inputValue("#saved-remove"), "3");
  await page.fill("#saved-remove", "4");
  await page.click("#resume");
  const { steps } = await planOf(page);
  assert.equal(steps.length, 4);
  assert.deepEqual(steps.slice(0, 3), whole.steps);
  await page.reload();
  await page.waitForTimeout(500);
  assert.ok(await page.isHidden("#saved"), "a finished search is not offered again");
  await context.close();
});

test("a lost device is told, and the search goes on where it was", async () => {
  const context = await browser.newContext({ acceptDownloads: true });
  const page = await visit(context);
  await page.click("#start");
  await stepDone(page, 1);
  await page.workers()[0].evaluate(() => globalThis.devices.at(-1).destroy());
  await page.waitForSelector("#problem:visible", { timeout: PATIENCE });
  assert.match(await page.textContent("#problem"), /lost.*press Resume/s);
  await page.click("#resume");
  assert.deepEqual(await planOf(page), whole);
  await context.close();
});

test("two tabs do not share a saved search", async () => {
  const context = await browser.newContext({ acceptDownloads: true });
  const [first, second] = [await visit(context), await visit(context)];
  await first.bringToFront();
  await first.click("#start");
  await first.waitForFunction(() => document.querySelector("#f-perplexity").textContent !== "–", null, { timeout: PATIENCE });
  await second.bringToFront();
  await second.click("#start");
  await second.waitForSelector("#problem:visible");
  assert.match(await second.textContent("#problem"), /Another tab/);
  await first.bringToFront();
  assert.deepEqual(await planOf(first), whole);
  await second.bringToFront();
  await second.click("#start");
  assert.deepEqual(await planOf(second), whole);
  await context.close();
});

test("with a full disk the search goes on and says that it cannot be saved", async () => {
  const context = await browser.newContext({ acceptDownloads: true });
  const page = await visit(context);
  const session = await context.newCDPSession(page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: site.url, quotaSize: 1 });
  await page.click("#start");
  assert.deepEqual(await planOf(page), whole);
  assert.match(await page.textContent("#unsaved"), /cannot be saved/);
  assert.ok(await page.isVisible("#unsaved"));
  await context.close();
});
