// Uploads, and the lines they stand in until it is their turn.

import { fingerprint } from "./upload-memory.js";

/** Files of up to TOGETHER bytes share a request, those of up to WHOLE have one each, larger ones can be resumed. */
export const TOGETHER = 512 << 10;
const WHOLE = 4 << 20;

/** How many files, and how many bytes, share a request. */
export const MOST_FILES = 24;
const MOST_BYTES = 2 << 20;

/** From how many waiting files it is worth finding out first what is faster, hashing or sending. */
const MANY = 100;

/** How much longer it must take to send small files than to hash them, or they are sent without looking. */
const WORTH = 4;

/** States in which something is going to happen by itself. */
export const ACTIVE = new Set(["waiting", "checking", "ready", "sending", "elsewhere"]);

/**
 * An upload: `file`, `path`, `name`, `size` in bytes; `state` is one of ACTIVE, or new, paused, failed, stored, known,
 * same, cancelled; `sent` bytes are on the server; `error` is why it failed, or what it waits for; `user` is the key of
 * whoever it is sent for, `owner` their name once it is known; `twin` is the path of the first with the same content;
 * `turn` counts how often it was begun.
 */
export class Upload {
  state = "new";
  sent = 0;
  error = null;
  hash = null;
  address = null;
  isAlone = false;
  owner = null;
  twin = "";
  turn = 0;
  #controller = null;

  constructor({ file, path, handle }) {
    // each of these may cost the browser a look at the disk
    const [size, lastModified] = file ? [file.size, file.lastModified] : [0, 0];
    const name = path.split("/").pop();
    Object.assign(this, { file, path, handle, name, size, lastModified, isResumable: size > WHOLE });
    // the same file again is the same upload
    this.key = fingerprint("", this);
  }

  /** Wait for its turn, for a user. */
  await(user) {
    Object.assign(this, { user, state: "waiting", error: null, turn: this.turn + 1 });
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

/** Three lines: of those waiting to be looked at, then of small and of large ones ready to be sent. */
export class Lines {
  #lines = { waiting: new Set(), small: new Set(), large: new Set() };

  /** Return how many stand in a line, with those that were stopped since. */
  count(name) {
    return this.#lines[name].size;
  }

  /** Stand at the end of the line of those waiting, and nowhere else. */
  wait(upload) {
    for (const line of Object.values(this.#lines)) line.delete(upload);
    this.#lines.waiting.add(upload);
  }

  /** Stand at the end of the line of those that are ready. */
  makeReady(upload) {
    upload.state = "ready";
    this.#lines[upload.isResumable ? "large" : "small"].add(upload);
  }

  /** Stand at the beginning of the line of small ones again. */
  putBack(uploads) {
    this.#lines.small = new Set([...uploads, ...this.#lines.small]);
  }

  /** Take the first of a line, undefined where there is none; what was stopped meanwhile is passed over. */
  take(name) {
    const line = this.#lines[name];
    for (const upload of line) {
      line.delete(upload);
      if (upload.state === (name === "waiting" ? name : "ready")) return upload;
    }
  }

  /** Take as many small ones as go together. */
  takeTogether() {
    const taken = [];
    let bytes = 0;
    for (const upload of this.#lines.small) {
      bytes += upload.state === "ready" ? upload.size : 0;
      const isBig = upload.size > TOGETHER || upload.isAlone;
      if (taken.length && (isBig || taken.length === MOST_FILES || bytes > MOST_BYTES)) break;
      this.#lines.small.delete(upload);
      if (upload.state !== "ready") continue;
      taken.push(upload);
      if (isBig) break;
    }
    return taken;
  }
}

/** What hashing and sending have taken lately, in milliseconds for a small file. */
export class Costs {
  #each = { hash: 0, send: 0 };
  #probes = 0;

  /** Whether it is known how long sending takes. */
  get isKnown() {
    return this.#each.send > 0;
  }

  /** Take note of what was begun with so many small files, so many of such tasks at once, and is done. */
  weigh(what, files, begun, lanes) {
    const each = (performance.now() - begun) / files / lanes;
    const known = this.#each[what];
    this.#each[what] += (each - known) * (known ? 0.2 : 1);
  }

  /** Tell whether to look first whether the server has a file; of many small ones some are sent without, as a probe. */
  isWorthHashing({ size, hash }, waiting) {
    if (hash) return false;
    if (size > TOGETHER) return true;
    if (this.isKnown) return this.#each.send > WORTH * this.#each.hash;
    return waiting < MANY || this.#probes++ >= MOST_FILES;
  }
}
