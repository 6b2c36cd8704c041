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
  await page.fill("#remove", "3");
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
  assert.match(await page.textContent("#saved-text"), /the built-in model, [12] of 3 blocks removed/);
  await page.click("#resume");
  assert.deepEqual(await planOf(page), whole);
  await context.close();
});

test("a reload in the middle loses nothing", async () => {
  const context = await browser.newContext({ acceptDownloads: true });
  const page = await visit(context);
  await page.click("#start");
  await stepDone(page, 1);
  await page.waitForTimeout(300);
  await page.reload();
  await page.waitForSelector("#saved:visible");
  await page.click("#resume");
  assert.deepEqual(await planOf(page), whole);
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
