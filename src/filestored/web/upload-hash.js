// What the server has already: files are hashed in the browser where that is cheap, and asked about in batches.

import { digest } from "./upload-digest.js";

/** The largest file in bytes that is hashed: it has to be in memory as a whole. */
const MAX_HASHED = 64 << 20;

/** From this size in bytes a worker hashes, so that the page does not stutter. */
const WORTH_A_WORKER = 2 << 20;

const MAX_ASKED = 500;
const GATHERING_MS = 4;
const SUBTLE_NAMES = { sha1: "SHA-1", sha256: "SHA-256", sha512: "SHA-512" };

/** Tells which files need not be sent. */
export class Knowledge {
  #api;
  #answer = null;
  #asked = [];
  #isAsking = false;
  #worker = null;
  #orders = new Map();

  constructor(api) {
    this.#api = api;
  }

  /**
   * Ask, once, who we are to the server and what it hashes with: `owner`, `algorithm`, undefined where it does not say.
   * Throws ApiError where a token is needed.
   */
  async prepare() {
    const answer = this.#answer ??= this.#ask();
    try {
      return await answer;
    } catch (error) {
      if (this.#answer === answer) this.#answer = null;
      if (error.status === 401) throw error;
      return {};
    }
  }

  async #ask() {
    const api = this.#api;
    const { owner, permissions } = await api.json("GET", "/v1/caller");
    const { algorithm } = permissions.includes("read") ? api.stats ?? await api.json("GET", "/v1/stats") : {};
    return { owner, algorithm };
  }

  /** Forget what the server said: somebody else is signed in. */
  forget() {
    this.#answer = null;
  }

  /** Return the hash of an upload's file in hex, null where it is not cheap or not possible. Throws like prepare. */
  async hash({ file, size }) {
    const name = SUBTLE_NAMES[(await this.prepare()).algorithm];
    // there is none on pages that came over plain http from another machine
    if (!name || !globalThis.crypto?.subtle || size > MAX_HASHED) return null;
    // what cannot be read fails when it is sent, and is told of there
    return (size < WORTH_A_WORKER ? digest(file, name) : this.#delegate(file, name)).catch(() => null);
  }

  /**
   * Return the file object where the caller has the content already, null where it is to be sent. What an upload would
   * change is changed: the name that is given counts, and the file is kept for ever.
   */
  async find(hash, name) {
    const answer = this.#answer;
    try {
      return await this.#isMissing(hash) ? null : await this.#adopt(hash, name, answer);
    } catch {
      return null;
    }
  }

  async #adopt(hash, name, answer) {
    const { owner } = await answer;
    const found = await this.#api.json("GET", `/v1/files/${hash}`);
    // whoever administers sees what others keep, too: that is not kept for them
    if (found.owner !== owner || this.#answer !== answer) return null;
    if (found.name === name && !found.expires_at) return found;
    return this.#api.json("PATCH", `/v1/files/${hash}`, { body: { name, expires_at: null } });
  }

  #isMissing(hash) {
    return new Promise((resolve, reject) => {
      this.#asked.push({ hash, resolve, reject });
      if (!this.#isAsking) setTimeout(() => this.#askAbout(), GATHERING_MS);
      this.#isAsking = true;
    });
  }

  // while one question is on its way the next is gathered
  async #askAbout() {
    while (this.#asked.length) {
      const batch = this.#asked.splice(0, MAX_ASKED);
      try {
        const body = { hashes: batch.map(({ hash }) => hash) };
        const missing = new Set((await this.#api.json("POST", "/v1/files/missing", { body })).missing);
        batch.forEach(({ hash, resolve }) => resolve(missing.has(hash)));
      } catch (error) {
        batch.forEach(({ reject }) => reject(error));
      }
    }
    this.#isAsking = false;
  }

  #delegate(file, name) {
    if (!this.#worker) {
      this.#worker = new Worker("/web/upload-hash-worker.js", { type: "module" });
      this.#worker.onmessage = ({ data: { id, hash } }) => this.#settle(id, hash);
      this.#worker.onerror = () => [...this.#orders.keys()].forEach((id) => this.#settle(id, null));
    }
    return new Promise((resolve) => {
      const id = crypto.randomUUID();
      this.#orders.set(id, resolve);
      this.#worker.postMessage({ id, file, name });
    });
  }

  #settle(id, hash) {
    this.#orders.get(id)?.(hash);
    this.#orders.delete(id);
  }
}
