// Deleting files: at once where a question was answered, else after some seconds in which it can be undone.

import { explain } from "./api.js";
import { toast } from "./toasts.js";
import { nameOf } from "./kinds.js";
import { say } from "./words.js";

const UNDO_SECONDS = 6;
const AT_ONCE = 4;
// rows are taken out so many at a time: each time the list is looked through
const TAKEN_TOGETHER = 50;

/**
 * Hides files, and sends their deletion when it can no longer be undone: that is when its message goes. It is sent as
 * whoever wished it, also when somebody else is signed in by then.
 */
export class Deletions {
  #waiting = new Set();

  constructor(api) {
    this.api = api;
    this.done = () => {};
    const { session } = api;
    addEventListener("pagehide", () => this.#sendAll());
    // phones may end a page that is not seen without another word
    document.addEventListener("visibilitychange", () => document.hidden && this.#sendAll());
    session.addEventListener("signed-in", () => this.#sendAll());
    session.addEventListener("signed-out", ({ detail }) => (detail.isRefused ? this.#dropAll() : this.#sendAll()));
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Whether a file with this hash waits to be deleted. */
  isWaiting(hash) {
    const authorization = this.api.authorization();
    return [...this.#waiting].some((batch) =>
      batch.authorization === authorization && batch.files.some((file) => file.hash === hash));
  }

  /** Delete files of a list, unless it is undone within some seconds. */
  later(list, files) {
    const batch = this.#batch(list, files);
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
      if (batch.files.length) continue;
      this.#waiting.delete(batch);
      batch.leave();
    }
  }

  /** Delete files of a list now. */
  async now(list, files) {
    const leave = files.length > 1 ? toast(say("deleting", { n: files.length }), { seconds: 3600 }) : () => {};
    const gone = await this.#delete(this.#batch(list, files), AT_ONCE, false);
    leave();
    if (gone) toast(say("deleted.many", { n: gone }));
  }

  #batch(list, files) {
    const seesAll = this.api.caller?.permissions.includes("admin") ?? false;
    return { list, files: [...files], authorization: this.api.authorization(), seesAll };
  }

  /** Ctrl+Z undoes the newest, but in a field where it is for the text. */
  #press(event) {
    const isWished = (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.code === "KeyZ";
    const batch = [...this.#waiting].findLast(({ isSent }) => !isSent);
    if (!isWished || !batch || event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    event.preventDefault();
    batch.leave();
    this.#drop(batch);
  }

  #drop(batch) {
    this.#waiting.delete(batch);
    batch.list.hide(batch.files, false);
    batch.list.rowOf(batch.files[0])?.opener.focus();
  }

  /** The token is good for nothing any more, so that none of them could be deleted. */
  #dropAll() {
    for (const batch of this.#waiting) batch.leave();
    this.#waiting.clear();
  }

  /** Send a batch, all of it at once: the page may go before it is answered. */
  async #send(batch) {
    batch.isSent = true;
    await this.#delete(batch, batch.files.length, true);
    this.#waiting.delete(batch);
  }

  /** Delete, `most` at a time; return how many are gone. What could not be deleted is shown again, with the reason. */
  async #delete(batch, most, keepalive) {
    const { list, files } = batch;
    const left = [...files];
    const kept = [];
    let gone = [];
    let fault = null;
    const take = () => {
      list.remove(gone);
      gone = [];
    };
    // whoever sees all files deletes a hash for all owners
    const goes = (each, file) => each.owner === file.owner || batch.seesAll;
    const work = async () => {
      for (let file = left.shift(); file; file = left.shift()) {
        try {
          await this.#ask(batch, file, keepalive);
          gone.push(...list.rowsOf(file.hash).map((row) => row.file).filter((each) => goes(each, file)));
          if (gone.length >= TAKEN_TOGETHER) take();
        } catch (error) {
          fault = error;
          kept.push(file);
        }
      }
    };
    await Promise.all(Array.from({ length: most }, work));
    take();
    list.hide(kept, false);
    if (fault) toast(explain(fault, "delete"), { kind: "error", seconds: 10 });
    this.done();
    return files.length - kept.length;
  }

  async #ask({ authorization }, { hash }, keepalive) {
    try {
      await this.api.request("DELETE", `/v1/files/${hash}`, { authorization, keepalive });
    } catch (error) {
      // somebody else was faster
      if (error.status !== 404) throw error;
    }
  }

  /** The page goes, or who it is for: what waits is sent, and outlives the page. */
  #sendAll() {
    for (const batch of this.#waiting) {
      if (batch.isSent) continue;
      batch.leave();
      this.#send(batch);
    }
  }
}
