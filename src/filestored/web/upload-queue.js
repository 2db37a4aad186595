// The uploads under way: hashed, asked about and sent, a few at a time, in the order they came.

import { alone, fingerprint } from "./upload-memory.js";
import { SendError, UNREADABLE, persist, sendTogether, sendWhole } from "./upload-send.js";
import { discard, sendResumable } from "./upload-tus.js";

/** Files of up to TOGETHER bytes share a request, those of up to WHOLE have one each, larger ones can be resumed. */
const TOGETHER = 512 << 10;
const WHOLE = 4 << 20;
const MOST_FILES = 24;
const MOST_BYTES = 2 << 20;

/** What goes on at once. A browser opens six connections to a server: one is left for the rest of the page. */
const LANES = { hash: 2, small: 3, large: 2 };

/** How many files are looked at before it is their turn to be sent. */
const AHEAD = 500;

/** From how many waiting files it is worth finding out first what is faster, hashing or sending. */
const MANY = 100;

/** How much longer it must take to send small files than to hash them, or they are sent without looking. */
const WORTH = 4;

/** Statuses that have nothing to do with which file it is. */
const FOR_ALL = new Set([401, 403, 507]);

/** States in which something is going to happen by itself. */
export const ACTIVE = new Set(["waiting", "checking", "ready", "sending", "elsewhere"]);

/**
 * An upload: `file`, `path`, `name`, `size` in bytes; `state` is one of ACTIVE, or paused, failed, stored, known,
 * cancelled; `sent` bytes are on the server; `error` is why it failed, or what it waits for.
 */
class Upload {
  state = "waiting";
  sent = 0;
  error = null;
  hash = null;
  address = null;
  isAlone = false;
  #controller = null;

  constructor({ file, path, handle }) {
    // each of these may cost the browser a look at the disk
    const [size, lastModified] = file ? [file.size, file.lastModified] : [0, 0];
    const name = path.split("/").pop();
    Object.assign(this, { file, path, handle, name, size, lastModified, isResumable: size > WHOLE });
    // the same file again is the same upload
    this.key = fingerprint("", this);
  }

  /** Begin to be sent, together with whatever has the same controller. */
  begin(controller) {
    this.#controller = controller;
    this.state = "sending";
    this.error = null;
  }

  /** Go into another state, and end what is being done. */
  stop(state, error = null) {
    Object.assign(this, { state, error });
    if (!this.isResumable) this.sent = 0;
    this.#controller?.abort();
    this.#controller = null;
  }
}

/** The queue. `uploads` are those not stored yet, in their order; `done` what became of the others. */
export class Queue {
  uploads = new Set();
  done;
  #parts;
  #byKey = new Map();
  #lines = { waiting: [], small: [], large: [] };
  #busy = { hash: 0, small: 0, large: 0 };
  #checking = 0;
  /** Milliseconds that a small file has taken lately. */
  #costs = { hash: 0, send: 0 };
  #probes = 0;
  #isDue = false;

  /** `parts`: `api`, `knowledge`, `memory`, `onStored`, and `tell`, called whenever something has changed. */
  constructor(parts) {
    this.#parts = parts;
    this.clear();
  }

  /** Add items of upload-gather.js. What is in the queue already only goes on. */
  add(items) {
    for (const item of items) {
      const upload = new Upload(item);
      const same = this.#byKey.get(upload.key);
      if (!same) {
        this.#byKey.set(upload.key, upload);
        this.uploads.add(upload);
      }
      if (!ACTIVE.has(same?.state)) this.#await(same ?? upload);
    }
    this.#pump();
  }

  /** Stop sending some for now. */
  pause(uploads) {
    for (const upload of uploads) if (ACTIVE.has(upload.state)) upload.stop("paused");
    this.#pump();
  }

  /** Go on with those that are paused or have failed. */
  resume(uploads) {
    for (const upload of uploads) if (!ACTIVE.has(upload.state)) this.#await(upload);
    this.#pump();
  }

  /** Give one up; the server forgets what it has of it. */
  async cancel(upload) {
    upload.stop("cancelled");
    this.#remove(upload);
    this.#pump();
    if (!upload.address) return;
    await this.#parts.memory.forget(this.#traceKey(upload));
    await discard(this.#parts.api, upload.address);
  }

  /** Fail whatever is under way: nobody is signed in. */
  signOut() {
    for (const upload of this.uploads) if (ACTIVE.has(upload.state)) this.#fail(upload, new SendError(401));
  }

  /** Go on with what failed for want of a token; what another user began is begun anew. */
  signIn() {
    this.#parts.knowledge.forget();
    for (const upload of this.uploads) {
      if (upload.state !== "failed" || upload.error.status !== 401) continue;
      upload.address = null;
      this.#await(upload);
    }
    this.#pump();
  }

  /** Forget those that are stored. */
  clear() {
    this.done = { stored: 0, known: 0, bytes: 0, latest: [] };
    this.#parts.tell();
  }

  /** Whether closing the page would lose what is being sent. */
  get wouldLose() {
    return [...this.uploads].some(({ state, isResumable, address }) => ACTIVE.has(state) && !(isResumable && address));
  }

  #await(upload) {
    if (!upload.file) return this.#fail(upload, new SendError(UNREADABLE));
    Object.assign(upload, { state: "waiting", error: null });
    this.#lines.waiting.push(upload);
  }

  #fail(upload, error) {
    upload.stop("failed", error);
    // it is not what was hashed any more
    if (error.status === 422) Object.assign(upload, { address: null, hash: null });
    this.#parts.tell();
  }

  #remove(upload) {
    this.#byKey.delete(upload.key);
    this.uploads.delete(upload);
    this.#parts.tell();
  }

  /** Start whatever there is room for. */
  #pump() {
    const { waiting, small, large } = this.#lines;
    let next;
    const isFree = (lane) => this.#busy[lane] < LANES[lane];
    const ahead = this.#costs.send ? AHEAD : 2 * MOST_FILES;
    while (isFree("hash") && this.#checking + small.length < ahead && (next = take(waiting, "waiting"))) {
      this.#check(next);
    }
    while (isFree("small") && (next = takeTogether(small)).length) this.#run("small", this.#sendSmall(next));
    while (isFree("large") && (next = take(large, "ready"))) this.#run("large", this.#sendLarge(next));
    this.#parts.tell();
  }

  // those that have got further together are to be sent together
  #pumpSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      this.#pump();
    });
  }

  async #run(lane, task) {
    this.#busy[lane]++;
    await task;
    this.#busy[lane]--;
    this.#pump();
  }

  #check(upload) {
    this.#checking++;
    upload.state = "checking";
    // while the server is asked about one file the next is hashed
    if (this.#isWorthHashing(upload)) this.#run("hash", this.#hash(upload).then(() => void this.#lookUp(upload)));
    else this.#lookUp(upload);
  }

  // of many small files some are sent at once, to see how long that takes
  #isWorthHashing({ size, hash }) {
    if (hash) return false;
    if (size > TOGETHER) return true;
    const costs = this.#costs;
    if (costs.send) return costs.send > WORTH * costs.hash;
    return this.#lines.waiting.length < MANY || this.#probes++ >= MOST_FILES;
  }

  async #hash(upload) {
    const begun = performance.now();
    upload.hash = await this.#parts.knowledge.hash(upload).catch(() => null);
    if (upload.size <= TOGETHER) this.#weigh("hash", 1, begun, this.#busy.hash);
  }

  async #lookUp(upload) {
    const { knowledge } = this.#parts;
    try {
      await knowledge.prepare();
    } catch {
      // the same for all: no need to ask for each
      this.signOut();
    }
    const found = upload.hash && await knowledge.find(upload.hash, upload.name);
    this.#checking--;
    if (upload.state === "checking") {
      upload.state = "ready";
      if (found) this.#finish(upload, found, "known");
      else this.#lines[upload.isResumable ? "large" : "small"].push(upload);
    }
    this.#pumpSoon();
  }

  async #sendSmall(uploads) {
    const controller = new AbortController();
    const { signal } = controller;
    uploads.forEach((upload) => upload.begin(controller));
    const [first] = uploads;
    const options = { signal, progress: (loaded) => this.#share(uploads, loaded) };
    const isOne = uploads.length === 1 && first.size > 0;
    const { api } = this.#parts;
    const attempt = () => (isOne ? sendWhole(api, first, options) : sendTogether(api, uploads, options));
    const begun = performance.now();
    try {
      const files = uploads.map(({ file }) => file);
      const { objects, isNew } = await persist(attempt, { files, signal, tell: (error) => this.#note(uploads, error) });
      if (first.size <= TOGETHER) this.#weigh("send", uploads.length, begun, this.#busy.small);
      uploads.forEach((upload, at) => this.#finish(upload, objects[at], isNew ? "stored" : "known"));
    } catch (error) {
      this.#sendAgain(uploads.filter(({ state }) => state === "sending"), signal.aborted, error);
    }
  }

  // what did not go together goes again: without what was stopped, or each by itself to see which it was
  #sendAgain(uploads, isStopped, error) {
    if (!isStopped && (uploads.length === 1 || FOR_ALL.has(error.status))) {
      uploads.forEach((upload) => this.#fail(upload, error));
      return;
    }
    for (const upload of uploads) {
      upload.stop("ready");
      upload.isAlone ||= !isStopped;
    }
    this.#lines.small.unshift(...uploads);
  }

  #weigh(what, files, begun, lanes) {
    const each = (performance.now() - begun) / files / lanes;
    const known = this.#costs[what];
    this.#costs[what] += (each - known) * (known ? 0.2 : 1);
  }

  #share(uploads, loaded) {
    let left = loaded;
    for (const upload of uploads) {
      upload.sent = Math.max(0, Math.min(left, upload.size));
      left -= upload.size;
    }
    this.#parts.tell();
  }

  async #sendLarge(upload) {
    const controller = new AbortController();
    const { signal } = controller;
    upload.begin(controller);
    const key = this.#traceKey(upload);
    let isElsewhere = false;
    const move = (state) => {
      // what another tab sends takes no place here
      isElsewhere = state === "elsewhere";
      this.#busy.large += isElsewhere ? -1 : 1;
      upload.state = state;
      this.#pump();
    };
    const task = async (hadToWait) => {
      if (hadToWait) move("sending");
      await this.#recall(upload, key);
      this.#finish(upload, await this.#sendPieces(upload, key, signal), "stored");
    };
    try {
      await this.#recall(upload, key);
      await alone(key, signal, () => move("elsewhere"), task);
    } catch (error) {
      if (isElsewhere) this.#busy.large++;
      if (signal.aborted) return;
      if (error.status === 422) await this.#parts.memory.forget(key);
      this.#fail(upload, error);
    }
  }

  async #recall(upload, key) {
    upload.address = (await this.#parts.memory.find(key))?.address ?? upload.address;
  }

  async #sendPieces(upload, key, signal) {
    const { api, memory, tell } = this.#parts;
    const { name, path, size, lastModified, handle, file: { type } } = upload;
    const created = Date.now();
    const trace = { key, user: api.session.key, name, path, size, lastModified, created, ...(handle && { handle }) };
    const hash = await sendResumable(api, upload, {
      signal,
      progress(sent) {
        upload.sent = sent;
        tell();
      },
      tell: (error) => this.#note([upload], error),
      async remember(address, offset) {
        upload.address = address;
        await (address ? memory.keep({ ...trace, address, offset }) : memory.forget(key));
      },
    });
    await memory.forget(key);
    // whoever may not read is not told more than the hash
    const own = { hash, name, size, type, owner: null, created_at: new Date().toISOString(), expires_at: null };
    return api.json("GET", `/v1/files/${hash}`).catch(() => own);
  }

  #note(uploads, error) {
    uploads.forEach((upload) => Object.assign(upload, { error }));
    this.#parts.tell();
  }

  #finish(upload, object, state) {
    Object.assign(upload, { state, error: null, sent: upload.size });
    this.done[state]++;
    this.done.bytes += upload.size;
    this.done.latest = [...this.done.latest.slice(-4), upload];
    this.#remove(upload);
    this.#parts.onStored(object);
  }

  #traceKey(upload) {
    return fingerprint(this.#parts.api.session.key, upload);
  }
}

// the first of a line that is still in a state: what was stopped meanwhile is passed over
function take(line, state) {
  let upload;
  do {
    upload = line.shift();
  } while (upload && upload.state !== state);
  return upload;
}

// as many small files as go together
function takeTogether(line) {
  const taken = [];
  let bytes = 0;
  for (let upload = take(line, "ready"); upload; upload = take(line, "ready")) {
    bytes += upload.size;
    const isBig = upload.size > TOGETHER || upload.isAlone;
    if (taken.length && (isBig || taken.length === MOST_FILES || bytes > MOST_BYTES)) {
      line.unshift(upload);
      break;
    }
    taken.push(upload);
    if (isBig) break;
  }
  return taken;
}
