// What the browser remembers of unfinished uploads, so that they can go on after the page was closed.

const NAME = "filestored-uploads";

/** As long is remembered what nobody has gone on with; by default servers keep it for a day. */
const KEPT_MS = 30 * 86_400_000;

/** Return what an upload is known by: the user, and the file's path, size and time of change. */
export function fingerprint(user, { path, size, lastModified }) {
  return [user, path, size, lastModified].join("\n");
}

/**
 * The traces of unfinished uploads: `key` (fingerprint), `user`, `name`, `path`, `size`, `lastModified`, `address` on
 * the server, `offset` (bytes that it had), `created` (milliseconds), and the `handle` where the browser gave one.
 * Where the browser keeps nothing, nothing is remembered, and nothing fails.
 */
export class Memory {
  #database = null;

  /** Return the trace of an upload, or null. */
  async find(key) {
    return await this.#run("readonly", (store) => store.get(key)) ?? null;
  }

  /** Return the traces of a user, the oldest first; those that are too old, of all users, are forgotten. */
  async list(user) {
    const all = await this.#run("readonly", (store) => store.getAll()) ?? [];
    const isOld = ({ created }) => created < Date.now() - KEPT_MS;
    all.filter(isOld).forEach(({ key }) => this.forget(key));
    return all.filter((trace) => trace.user === user && !isOld(trace))
      .sort((one, other) => one.created - other.created);
  }

  /** Keep a trace instead of the one with its key. */
  async keep(trace) {
    await this.#run("readwrite", (store) => store.put(trace));
  }

  /** Forget an upload. */
  async forget(key) {
    await this.#run("readwrite", (store) => store.delete(key));
  }

  async #run(mode, act) {
    try {
      this.#database ??= open();
      return await result(act((await this.#database).transaction(NAME, mode).objectStore(NAME)));
    } catch {
      this.#database = null;
      return null;
    }
  }
}

/**
 * Run a task while no other tab runs one for the same upload, and return what it returns. `wait` is called where
 * another tab is at it; the task is told whether it had to wait.
 */
export async function alone(key, signal, wait, task) {
  if (!navigator.locks) return task(false);
  const name = `${NAME}\n${key}`;
  const refused = {};
  const done = await navigator.locks.request(name, { ifAvailable: true }, (lock) => (lock ? task(false) : refused));
  if (done !== refused) return done;
  wait();
  return navigator.locks.request(name, { signal }, () => task(true));
}

function open() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(NAME, { keyPath: "key" });
  return result(request);
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
