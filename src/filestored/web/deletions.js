// Deleting files: at once where a question was answered, else after some seconds in which it can be undone.

import { explain } from "./api.js";
import { toast } from "./toasts.js";
import { nameOf } from "./kinds.js";
import { say } from "./words.js";

const UNDO_SECONDS = 6;
const AT_ONCE = 4;
// rows are taken out so many at a time: each time the list is looked through
const TAKEN_TOGETHER = 50;

/** Hides files, and sends their deletion when it can no longer be undone: that is when its message goes. */
export class Deletions {
  #waiting = new Set();

  constructor(api) {
    this.api = api;
    this.done = () => {};
    addEventListener("pagehide", () => this.#sendAll());
  }

  /** Whether a file with this hash waits to be deleted. */
  isWaiting(hash) {
    return [...this.#waiting].some((batch) => batch.files.some((file) => file.hash === hash));
  }

  /** Delete files of a list, unless it is undone within some seconds. */
  later(list, files) {
    const batch = { list, files: [...files] };
    this.#waiting.add(batch);
    list.hide(files, true);
    const [n, name] = [files.length, nameOf(files[0])];
    const text = n === 1 ? say("deleted", { name }) : say("deleted.many", { n });
    const undo = { label: say("undo"), run: () => this.#drop(batch) };
    batch.leave = toast(text, { seconds: UNDO_SECONDS, action: undo, gone: () => this.#send(batch) });
  }

  /** Do not delete a file after all: it has just been uploaded again. */
  spare(hash) {
    for (const batch of this.#waiting) {
      const spared = batch.files.filter((file) => file.hash === hash);
      batch.files = batch.files.filter((file) => file.hash !== hash);
      batch.list.hide(spared, false);
    }
  }

  /** Delete files of a list now. */
  async now(list, files) {
    const leave = files.length > 1 ? toast(say("deleting", { n: files.length }), { seconds: 3600 }) : () => {};
    const gone = await this.#delete(list, files);
    leave();
    if (gone) toast(say("deleted.many", { n: gone }));
  }

  #drop(batch) {
    this.#waiting.delete(batch);
    batch.list.hide(batch.files, false);
    batch.list.rowOf(batch.files[0])?.opener.focus();
  }

  async #send(batch) {
    await this.#delete(batch.list, batch.files);
    this.#waiting.delete(batch);
  }

  /** Delete, a few at a time; return how many are gone. What could not be deleted is shown again, with the reason. */
  async #delete(list, files) {
    const left = [...files];
    const kept = [];
    let gone = [];
    let fault = null;
    const take = () => {
      list.remove(gone);
      gone = [];
    };
    const work = async () => {
      for (let file = left.shift(); file; file = left.shift()) {
        try {
          await this.#ask(file);
          gone.push(...list.rowsOf(file.hash).map((row) => row.file).filter((each) => this.#goes(each, file)));
          if (gone.length >= TAKEN_TOGETHER) take();
        } catch (error) {
          fault = error;
          kept.push(file);
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    take();
    list.hide(kept, false);
    if (fault) toast(explain(fault, "delete"), { kind: "error", seconds: 10 });
    this.done();
    return files.length - kept.length;
  }

  /** Whether a row goes when a file is deleted: whoever sees all files deletes a hash for all owners. */
  #goes(each, file) {
    return each.owner === file.owner || (this.api.caller?.permissions.includes("admin") ?? false);
  }

  async #ask(file, keepalive = false) {
    try {
      await this.api.request("DELETE", `/v1/files/${file.hash}`, { keepalive });
    } catch (error) {
      // somebody else was faster
      if (error.status !== 404) throw error;
    }
  }

  /** The page goes: what can no longer be undone is sent, and outlives the page. */
  #sendAll() {
    for (const batch of this.#waiting) {
      batch.leave();
      for (const file of batch.files) this.#ask(file, true).catch(() => {});
    }
    this.#waiting.clear();
  }
}
