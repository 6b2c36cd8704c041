// The unfinished search, kept by the browser between two visits. One for the whole site: a lock says which tab has it.

import { type DBSchema, openDB } from "idb";
import type { Target } from "../pkg/blockpruner_web.js";
import type { SavedJob, Settled } from "./protocol";

interface Schema extends DBSchema {
  jobs: { key: "unfinished"; value: SavedJob | OlderJob };
}

/** What was saved before there was a choice of units, strategies and targets. */
type OlderJob = Omit<SavedJob, "settings"> & {
  settings: Omit<Settled, "units" | "strategy" | "target"> & Partial<Settled> & { remove?: number };
};

function current({ settings: { remove = 1, ...settings }, ...job }: OlderJob): SavedJob {
  const target: Target = settings.target ?? { remove };
  return { ...job, settings: { ...settings, units: settings.units ?? "blocks", strategy: settings.strategy ?? "exact", target } };
}

const database = () =>
  openDB<Schema>("blockpruner", 2, {
    upgrade(db, from) {
      // What version 1 saved cannot be gone on with.
      if (from > 0) db.deleteObjectStore("jobs");
      db.createObjectStore("jobs");
    },
  });

/** Replaces the saved search, whole or not at all. */
export async function save(job: SavedJob): Promise<void> {
  const db = await database();
  try {
    await db.put("jobs", job, "unfinished");
  } finally {
    db.close();
  }
}

export async function load(): Promise<SavedJob | null> {
  const db = await database();
  try {
    const job = await db.get("jobs", "unfinished");
    return job ? current(job) : null;
  } finally {
    db.close();
  }
}

export async function discard(): Promise<void> {
  const db = await database();
  try {
    await db.delete("jobs", "unfinished");
  } finally {
    db.close();
  }
}

/** Takes the saved search for this tab; null if another tab has it. Call the result to give it back. */
export async function take(): Promise<(() => void) | null> {
  return new Promise((resolve, reject) => {
    navigator.locks
      .request("blockpruner-unfinished", { ifAvailable: true }, (lock) => {
        if (!lock) {
          resolve(null);
          return;
        }
        return new Promise<void>((release) => resolve(release));
      })
      .catch(reject);
  });
}
