// Where an exported model goes: a folder that the visitor chose, or one zip file.

import { makeZip } from "client-zip";
import type { FolderSink } from "../pkg/blockpruner_web.js";

/** A new folder inside of `parent`. What was written goes away again if the export fails. */
export class DirectorySink implements FolderSink {
  private file?: FileSystemWritableFileStream;

  private constructor(
    private parent: FileSystemDirectoryHandle,
    private folder: FileSystemDirectoryHandle,
    readonly name: string,
  ) {}

  static async create(parent: FileSystemDirectoryHandle, name: string): Promise<DirectorySink> {
    const taken = async (candidate: string) => parent.getDirectoryHandle(candidate).then(() => true, () => false);
    let free = name;
    for (let number = 2; await taken(free); number += 1) free = `${name}-${number}`;
    return new DirectorySink(parent, await parent.getDirectoryHandle(free, { create: true }), free);
  }

  /** The folder `name` inside of this one, written like this one. */
  async inner(name: string): Promise<FolderSink> {
    return new DirectorySink(this.folder, await this.folder.getDirectoryHandle(name, { create: true }), name);
  }

  async beginFile(name: string): Promise<void> {
    this.file = await (await this.folder.getFileHandle(name, { create: true })).createWritable();
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.file!.write(bytes);
  }

  async endFile(): Promise<void> {
    await this.file!.close();
  }

  async remove(): Promise<void> {
    await this.parent.removeEntry(this.name, { recursive: true });
  }
}

/** One zip file, which the browser holds as a Blob until it is saved. */
export class ZipSink implements FolderSink {
  private files = new TransformStream<{ name: string; input: ReadableStream<Uint8Array> }>(undefined, undefined, { highWaterMark: 1 });
  private queue = this.files.writable.getWriter();
  private file?: WritableStreamDefaultWriter<Uint8Array>;
  readonly blob: Promise<Blob>;

  constructor() {
    this.blob = new Response(makeZip(readAll(this.files.readable))).blob();
    // Whoever finishes the sink is told; until then a failure shows at the next write.
    this.blob.catch(() => {});
  }

  async beginFile(name: string): Promise<void> {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    this.file = writable.getWriter();
    await this.queue.write({ name, input: readable });
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.file!.write(bytes);
  }

  async endFile(): Promise<void> {
    await this.file!.close();
  }

  inner(folder: string): FolderSink {
    return {
      beginFile: (name) => this.beginFile(`${folder}/${name}`),
      write: (bytes) => this.write(bytes),
      endFile: () => this.endFile(),
    };
  }

  async finish(): Promise<Blob> {
    await this.queue.close();
    return this.blob;
  }
}

async function* readAll<T>(stream: ReadableStream<T>): AsyncGenerator<T> {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}
