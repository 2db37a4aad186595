// Uploads that were under way when the page was closed, to be gone on with.

import { alone } from "./upload-memory.js";
import { ask, discard } from "./upload-tus.js";

/** The unfinished uploads of a user: `list` has traces of upload-memory.js, with `isElsewhere` and `isOther`. */
export class Leftovers {
  list = [];
  #parts;
  #loaded;

  /** `parts`: `api`, `memory`, `queue`, and `tell`, called whenever something has changed. */
  constructor(parts) {
    this.#parts = parts;
  }

  /** Look again: at the start, and for another user. */
  load() {
    this.#loaded = this.#load();
  }

  async #load() {
    const { api, memory, queue, tell } = this.#parts;
    const { key } = api.session;
    const paths = new Set([...queue.uploads].map(({ path }) => path));
    this.list = [];
    const list = await memory.list(key);
    // somebody else may have come meanwhile
    if (api.session.key !== key) return;
    this.list = list.filter(({ path }) => !paths.has(path));
    this.list.forEach((trace) => this.#look(trace));
    tell();
  }

  // while another tab goes on with it, what that comes to is waited for
  async #look(trace) {
    const { api, memory, tell } = this.#parts;
    const mark = (isElsewhere) => {
      trace.isElsewhere = isElsewhere;
      tell();
    };
    // only its user is told about it
    const isTheirs = () => api.session.key === trace.user;
    const look = async () => {
      if (!isTheirs()) return;
      try {
        const { offset, hash } = await ask(api, trace.address);
        trace.offset = offset;
        if (hash) await this.#forget(trace);
      } catch ({ status }) {
        if (isTheirs() && (status === 404 || status === 410)) await this.#forget(trace);
      }
      mark(false);
    };
    await alone(trace.key, new AbortController().signal, () => mark(true), look);
  }

  /** Upload items; those that were begun earlier go on where they were. */
  async add(items) {
    await this.#loaded;
    this.#parts.queue.add(items.map((item) => this.#recognize(item)));
  }

  #recognize(item) {
    const trace = item.file && this.list.find((left) => isSame(left, item.file));
    if (!trace) return item;
    this.#drop(trace);
    return { ...item, path: trace.path };
  }

  /** Go on with one whose handle is known; the browser may ask whether the page may read the file. */
  async resume(trace) {
    const { handle, path } = trace;
    const answer = await handle.requestPermission({ mode: "read" }).catch(() => "denied");
    const file = answer === "granted" && await handle.getFile().catch(() => null);
    if (file) return this.choose(trace, { file, path, handle });
    // what may not be read, or is not there any more, can be chosen
    delete trace.handle;
    this.#parts.tell();
  }

  /** Go on with one by the file that was chosen for it; another file is refused. */
  async choose(trace, item) {
    trace.isOther = !item.file || !isSame(trace, item.file);
    this.#parts.tell();
    if (!trace.isOther) await this.add([item]);
  }

  /** Give one up. */
  async discard(trace) {
    await this.#forget(trace);
    await discard(this.#parts.api, trace.address);
  }

  async #forget(trace) {
    this.#drop(trace);
    await this.#parts.memory.forget(trace.key);
  }

  #drop(trace) {
    this.list = this.list.filter((other) => other !== trace);
    this.#parts.tell();
  }
}

function isSame(trace, { name, size, lastModified }) {
  return trace.name === name && trace.size === size && trace.lastModified === lastModified;
}
