import init, { Checkpoint, Device, Text, Windows } from "blockpruner";

const log = (line) => document.getElementById("log").append(`${line}\n`);

document.getElementById("folder").addEventListener("change", async ({ target }) => {
  try {
    await init();
    const files = Object.fromEntries(Array.from(target.files, (file) => [file.name, file]));
    const checkpoint = await Checkpoint.fromFiles("my model", files);
    const device = await Device.openFor(checkpoint);
    const model = await device.load(checkpoint);
    const windows = Windows.cut(Text.sample(), checkpoint, { window: 64, max_windows: 1 });
    for await (const event of await model.prune(windows, { remove: 2 })) {
      if (event.type === "dense") log(`dense perplexity ${event.perplexity}`);
      if (event.type === "step") log(`without ${event.removed}: ${event.perplexity}`);
    }
    device.destroy();
    log("done");
  } catch (error) {
    log(`${error.code ?? error.name}: ${error.message}`);
  }
});
