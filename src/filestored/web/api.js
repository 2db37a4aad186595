// Talking to the server, and who the page does that as.

import { say } from "./words.js";

const KEPT = "filestored.token";
const SCHEME = "Bearer ";

/**
 * An answer of 400 and above, or no answer (`status` 0): `status`, `title`, `detail`, which the server words, and how
 * many seconds it asks to wait (`retryAfter`).
 */
export class ApiError extends Error {
  constructor(status, title = "", detail = "", retryAfter = 0) {
    super(detail || title || `status ${status}`);
    Object.assign(this, { status, title, detail, retryAfter });
  }
}

/**
 * The token, kept until the tab is closed, or on the device where that is wished. Emits "signed-in"; "signed-out",
 * whose `detail.isRefused` tells that the server no longer takes the token, and `detail.key` whose it was; "wanted"
 * where the server asks for one. A token that another tab remembers or forgets is taken and forgotten here too.
 */
export class Session extends EventTarget {
  #token = stored(sessionStorageOrNull()) ?? stored(localStorageOrNull());

  constructor() {
    super();
    addEventListener("storage", ({ key, storageArea }) => {
      if ((key === KEPT || key === null) && storageArea === localStorageOrNull()) this.#follow();
    });
  }

  /** The token, or null. */
  get token() {
    return this.#token;
  }

  /** What is remembered for a user is kept under this key: the public part of the token. */
  get key() {
    return this.#token?.match(/^fs-([0-9a-f]{12})-/)?.[1] ?? (this.#token ? "other" : "anonymous");
  }

  /** Use a token from now on; `remember` keeps it when the browser is closed. */
  signIn(token, remember) {
    this.#forget();
    this.#token = token;
    const place = remember ? localStorageOrNull() : sessionStorageOrNull();
    place?.setItem(KEPT, token);
    this.dispatchEvent(new Event("signed-in"));
  }

  /** Forget the token. */
  signOut(isRefused = false) {
    const { key } = this;
    this.#forget();
    this.dispatchEvent(new CustomEvent("signed-out", { detail: { isRefused, key } }));
  }

  /** Take note of an answer of 401 to a request with this token, or without one (null). */
  refuse(token) {
    // another one may have been signed in with meanwhile
    if (token !== this.#token) return;
    if (token) this.signOut(true);
    else this.dispatchEvent(new Event("wanted"));
  }

  /** Another tab has remembered a token, or forgotten it; a tab with a token of its own keeps to that. */
  #follow() {
    const token = stored(localStorageOrNull());
    if (token === this.#token || stored(sessionStorageOrNull())) return;
    if (this.#token) {
      const { key } = this;
      this.#token = null;
      this.dispatchEvent(new CustomEvent("signed-out", { detail: { isRefused: false, key } }));
    }
    if (!token) return;
    this.#token = token;
    this.dispatchEvent(new Event("signed-in"));
  }

  #forget() {
    this.#token = null;
    sessionStorageOrNull()?.removeItem(KEPT);
    localStorageOrNull()?.removeItem(KEPT);
  }
}

/** Requests to this server. Emits "reached" and "unreachable" as answers come or fail to. */
export class Api extends EventTarget {
  /** Who asks and what it may do, as last told by `/v1/caller`; null while that is not known. */
  caller = null;
  /** The sums last told by `/v1/stats`; null while they are not known. */
  stats = null;

  constructor(session) {
    super();
    this.session = session;
  }

  /** Return the value of the header `Authorization`, or null where nobody is signed in. */
  authorization() {
    return this.session.token && SCHEME + this.session.token;
  }

  /**
   * Ask; `body` is sent as JSON where it is a plain object, `authorization` (null for none) says as whom, where that is
   * not whoever is signed in. Returns the Response, throws ApiError or an AbortError.
   */
  async request(method, path, options = {}) {
    const { query = {}, body, headers = {}, signal, keepalive, authorization = this.authorization() } = options;
    const sent = { ...(authorization && { Authorization: authorization }), ...headers };
    const isJson = body?.constructor === Object;
    if (isJson) sent["Content-Type"] = "application/json";
    const search = new URLSearchParams(query).toString();
    let answer;
    try {
      answer = await fetch(search ? `${path}?${search}` : path, {
        method, headers: sent, body: isJson ? JSON.stringify(body) : body, signal, keepalive, credentials: "omit",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.dispatchEvent(new Event("unreachable"));
      throw new ApiError(0);
    }
    this.dispatchEvent(new Event("reached"));
    if (answer.ok) return answer;
    if (answer.status === 401) this.session.refuse(authorization?.slice(SCHEME.length) ?? null);
    const { title, detail } = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, title, detail, Number(answer.headers.get("Retry-After")));
  }

  /** See whether the server takes a token. Throws ApiError. */
  async try(token) {
    await this.request("GET", "/v1/caller", { authorization: SCHEME + token });
  }

  /** The same as `request`, and return the JSON of the answer. */
  async json(method, path, options) {
    return (await this.request(method, path, options)).json();
  }
}

/** Say in words what went wrong; `permission` is the one that was needed. */
export function explain(error, permission = "") {
  if (!(error instanceof ApiError)) return say("failed");
  const { status, detail } = error;
  if (status === 403 && permission) return say(`error.403.${permission}`);
  if ([0, 401, 403, 404, 413, 423, 503, 507].includes(status)) return say(`error.${status}`);
  if (status >= 500) return say("error.5");
  return detail ? say("error.other", { detail }) : say("failed");
}

// storage that is switched off throws at the mere mention
function sessionStorageOrNull() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

function localStorageOrNull() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}

function stored(storage) {
  return storage?.getItem(KEPT) ?? null;
}
