// The uploads under way: hashed, asked about and sent, a few at a time, in the order they came.

import { ACTIVE, Costs, Lines, MOST_FILES, TOGETHER, Upload } from "./upload-lines.js";
import { alone, fingerprint } from "./upload-memory.js";
import { SendError, UNREADABLE, persist, sendTogether, sendWhole } from "./upload-send.js";
import { discard, sendResumable } from "./upload-tus.js";

/** What goes on at once. A browser opens six connections to a server: one is left for the rest of the page. */
const LANES = { hash: 2, small: 5, large: 2 };
const CONNECTIONS = 5;

/** How many files are looked at before it is their turn to be sent. */
const AHEAD = 500;

/** Statuses that have nothing to do with which file it is. */
const FOR_ALL = new Set([401, 403, 507]);

/** The status of what is larger than the server takes, or than there is room for. */
const TOO_LARGE = 413;

/** The key of those who have not signed in. */
const NOBODY = "anonymous";

/** The queue. `uploads` are those not stored yet, in their order; `done` what became of the others. */
export class Queue {
  uploads = new Set();
  done;
  #parts;
  #byKey = new Map();
  #lines = new Lines();
  #costs = new Costs();
  #busy = { hash: 0, small: 0, large: 0 };
  #checking = 0;
  /** From this size in bytes nothing fits any more. */
  #tooLarge = Infinity;
  /** The key of whoever has signed in last. */
  #user = NOBODY;
  #isDue = false;

  /** `parts`: `api`, `knowledge`, `memory`, `onStored`, and `tell`, called whenever something has changed. */
  constructor(parts) {
    this.#parts = parts;
    this.clear();
  }

  /** Add items of upload-gather.js. What is in the queue already only goes on. */
  add(items) {
    const uploads = items.map((item) => {
      const upload = new Upload(item);
      const same = this.#byKey.get(upload.key);
      if (same) return same;
      this.#byKey.set(upload.key, upload);
      this.uploads.add(upload);
      return upload;
    });
    this.resume(uploads);
  }

  /** Stop sending some for now. */
  pause(uploads) {
    for (const upload of uploads) if (ACTIVE.has(upload.state)) upload.stop("paused");
    this.#pump();
  }

  /** Go on with those that are paused or have failed. */
  resume(uploads) {
    // there may be room again
    this.#tooLarge = Infinity;
    for (const upload of uploads) if (!ACTIVE.has(upload.state)) this.#await(upload);
    this.#pump();
  }

  /** Give some up; the server forgets what it has of them. */
  async cancel(uploads) {
    const { api, memory } = this.#parts;
    for (const upload of uploads) {
      upload.stop("cancelled");
      this.#remove(upload);
    }
    this.#pump();
    await Promise.all(uploads.filter(({ address }) => address).map(async (upload) => {
      await memory.forget(this.#traceKey(upload));
      await discard(api, upload.address);
    }));
  }

  /**
   * Somebody has signed out: nobody who comes after is to see or to send what was theirs. Where the server refused the
   * token it waits for them. What the server and the browser keep of unfinished uploads stays.
   */
  signOut(isRefused) {
    this.#parts.knowledge.forget();
    if (isRefused) return this.#failAll(new SendError(401));
    this.#user = NOBODY;
    this.#leave(this.uploads);
  }

  /** Somebody has signed in: go on with what is theirs, and with what nobody had signed in for. */
  async signIn() {
    const { api, knowledge } = this.#parts;
    const { key } = api.session;
    const before = this.#user;
    this.#user = key;
    knowledge.forget();
    const others = [...this.uploads].filter(({ user }) => user !== key && user !== NOBODY);
    for (const upload of this.uploads) if (upload.user === NOBODY) this.#begin(upload);
    others.forEach((upload) => ACTIVE.has(upload.state) && this.#fail(upload, new SendError(401)));
    // the owner may have another token now
    const isSame = [key, NOBODY].includes(before) || await this.#is(others.find(({ owner }) => owner)?.owner);
    if (api.session.key !== key) return;
    if (isSame) others.forEach((upload) => Object.assign(upload, { user: key }));
    else this.#leave(others);
    for (const upload of this.uploads) if (upload.error?.status === 401 && upload.user === key) this.#await(upload);
    this.#pump();
  }

  // what somebody else has begun on the server is not to be had
  #begin(upload) {
    const isWanted = ACTIVE.has(upload.state) || upload.error?.status === 401;
    Object.assign(upload, { address: null, user: this.#user });
    if (!isWanted) return;
    upload.stop("paused");
    this.#await(upload);
  }

  async #is(owner) {
    const answer = await this.#parts.knowledge.prepare().catch(() => ({}));
    return owner && answer.owner === owner;
  }

  #leave(uploads) {
    for (const upload of [...uploads]) {
      upload.stop("cancelled");
      this.#remove(upload);
    }
    this.clear();
  }

  /** Forget those that are stored. */
  clear() {
    this.done = { stored: 0, known: 0, same: 0, bytes: 0, latest: [], paths: new Map() };
    this.#parts.tell();
  }

  /** How many there are that something is going to happen to, or that are paused. */
  get unfinished() {
    return [...this.uploads].filter(({ state }) => state !== "failed").length;
  }

  /** Whether closing the page would lose what is being sent. */
  get wouldLose() {
    return [...this.uploads].some(({ state, isResumable, address }) => ACTIVE.has(state) && !(isResumable && address));
  }

  #await(upload) {
    const { key } = this.#parts.api.session;
    if (key !== NOBODY) this.#user = key;
    if (!upload.file) return this.#fail(upload, new SendError(UNREADABLE));
    // what waits for its user is not sent for another
    if (![undefined, NOBODY, key].includes(upload.user)) return this.#fail(upload, new SendError(401));
    upload.await(key);
    this.#lines.wait(upload);
  }

  #fail(upload, error) {
    upload.stop("failed", error);
    // it is not what was hashed any more
    if (error.status === 422) Object.assign(upload, { address: null, hash: null });
    this.#parts.tell();
  }

  // with what has failed fails what the reason holds for as well, without being sent
  #refuse(upload, error) {
    this.#fail(upload, error);
    if (FOR_ALL.has(error.status)) this.#failAll(error);
    if (error.status === TOO_LARGE) this.#tooLarge = Math.min(this.#tooLarge, upload.size);
  }

  #failAll(error) {
    for (const upload of this.uploads) if (ACTIVE.has(upload.state)) this.#fail(upload, error);
  }

  #remove(upload) {
    this.#byKey.delete(upload.key);
    this.uploads.delete(upload);
    this.#parts.tell();
  }

  /** Start whatever there is room for. */
  #pump() {
    const lines = this.#lines;
    let next;
    const busy = this.#busy;
    const isFree = (lane) => busy[lane] < LANES[lane] && (lane === "hash" || busy.small + busy.large < CONNECTIONS);
    const ahead = this.#costs.isKnown ? AHEAD : 2 * MOST_FILES;
    while (isFree("hash") && this.#checking + lines.count("small") < ahead && (next = lines.take("waiting"))) {
      this.#check(next);
    }
    while (isFree("large") && (next = lines.take("large"))) {
      if (this.#fitting([next]).length) this.#run("large", this.#sendLarge(next));
    }
    while (isFree("small") && (next = lines.takeTogether()).length) {
      next = this.#fitting(next);
      if (next.length) this.#run("small", this.#sendSmall(next));
    }
    this.#parts.tell();
  }

  // what is as large as one that found no room is not sent
  #fitting(uploads) {
    return uploads.filter((upload) => {
      const isFitting = upload.size < this.#tooLarge;
      if (!isFitting) this.#fail(upload, new SendError(TOO_LARGE));
      return isFitting;
    });
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
    if (this.#costs.isWorthHashing(upload, this.#lines.count("waiting"))) {
      this.#run("hash", this.#hash(upload).then(() => void this.#lookUp(upload)));
    } else {
      this.#lookUp(upload);
    }
  }

  async #hash(upload) {
    const begun = performance.now();
    upload.hash = await this.#parts.knowledge.hash(upload).catch(() => null);
    if (upload.size <= TOGETHER) this.#costs.weigh("hash", 1, begun, this.#busy.hash);
  }

  async #lookUp(upload) {
    const { knowledge } = this.#parts;
    const { turn } = upload;
    const isStill = () => upload.state === "checking" && upload.turn === turn;
    try {
      upload.owner = (await knowledge.prepare()).owner;
    } catch (error) {
      // the same for all: no need to ask for each
      if (isStill()) this.#failAll(new SendError(error.status));
    }
    const found = isStill() && upload.hash && await knowledge.find(upload.hash, upload.name);
    this.#checking--;
    if (isStill()) {
      if (found) this.#finish(upload, found, "known");
      else this.#lines.makeReady(upload);
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
      if (first.size <= TOGETHER) this.#costs.weigh("send", uploads.length, begun, this.#busy.small);
      uploads.forEach((upload, at) => this.#finish(upload, objects[at], isNew ? "stored" : "known"));
    } catch (error) {
      this.#sendAgain(uploads.filter(({ state }) => state === "sending"), signal.aborted, error);
    }
  }

  // what did not go together goes again: without what was stopped, or each by itself to see which it was
  #sendAgain(uploads, isStopped, error) {
    if (!isStopped && (uploads.length === 1 || FOR_ALL.has(error.status))) {
      uploads.forEach((upload) => this.#refuse(upload, error));
      return;
    }
    for (const upload of uploads) {
      upload.stop("ready");
      upload.isAlone ||= !isStopped;
    }
    this.#lines.putBack(uploads);
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
      this.#refuse(upload, error);
    }
  }

  async #recall(upload, key) {
    upload.address = (await this.#parts.memory.find(key))?.address ?? upload.address;
  }

  async #sendPieces(upload, key, signal) {
    const { api, memory, tell } = this.#parts;
    const { name, path, size, lastModified, handle, file: { type } } = upload;
    const created = Date.now();
    const trace = { key, user: upload.user, name, path, size, lastModified, created, ...(handle && { handle }) };
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

  #finish(upload, object, outcome) {
    // its user has signed out meanwhile
    if (!this.uploads.has(upload)) return;
    const { done } = this;
    const twin = done.paths.get(object.hash) ?? upload.path;
    const state = twin === upload.path ? outcome : "same";
    done.paths.set(object.hash, twin);
    Object.assign(upload, { state, twin, error: null, sent: upload.size });
    done[state]++;
    done.bytes += upload.size;
    done.latest = [...done.latest.slice(-4), upload];
    this.#remove(upload);
    this.#parts.onStored(object);
  }

  #traceKey(upload) {
    return fingerprint(upload.user, upload);
  }
}
