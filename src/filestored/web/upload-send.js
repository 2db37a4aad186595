// Requests that carry bytes: by XMLHttpRequest, which alone tells how much of a body has gone.

import { ApiError } from "./api.js";

const SILENCE_MS = 60_000;
const ANSWER_MS = 300_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

/** As long is waited where the server asks for longer. */
const LONGEST_ASKED_MS = 120_000;

/** What passes by itself, and what may, but is given up where it goes on for longer than PATIENCE_MS. */
const PASSING = new Set([0, 423, 425, 429, 502, 503, 504]);
const DOUBTFUL = new Set([408, 409, 500]);
const PATIENCE_MS = 180_000;

/** The status of a file that has changed since it was chosen, or cannot be read. */
export const UNREADABLE = -1;

/** An upload failed: an ApiError, whose status may be UNREADABLE as well. */
export class SendError extends ApiError {
  constructor(status, detail = "", retryAfter = 0) {
    super(status, "", detail, retryAfter);
  }
}

/**
 * Send a Blob, resolve to the XMLHttpRequest. `progress` is called with the bytes that have gone. Rejects with
 * SendError, or with what aborted the signal.
 */
export function send(api, method, path, { body, headers = {}, signal, progress }) {
  const { token } = api.session;
  const xhr = new XMLHttpRequest();
  const stop = () => xhr.abort();
  let timer;
  const watch = (patience) => {
    clearTimeout(timer);
    timer = setTimeout(stop, patience);
  };
  const ended = new Promise((resolve, reject) => {
    xhr.onload = () => (xhr.status < 400 ? resolve(xhr) : reject(refusal(xhr)));
    xhr.onerror = () => reject(new SendError(0));
    xhr.onabort = () => reject(signal.reason ?? new SendError(0));
    xhr.upload.onload = () => watch(ANSWER_MS);
    xhr.upload.onprogress = ({ loaded }) => {
      watch(SILENCE_MS);
      progress(loaded);
    };
    signal.throwIfAborted();
    signal.addEventListener("abort", stop);
    xhr.open(method, path);
    if (token) xhr.setRequestHeader("Authorization", api.authorization());
    Object.entries({ Accept: "application/json", ...headers }).forEach((header) => xhr.setRequestHeader(...header));
    watch(SILENCE_MS);
    xhr.send(body);
  });
  return ended.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    if (xhr.status === 401) api.session.refuse(token);
  });
}

function refusal(xhr) {
  const { status, responseText } = xhr;
  const retryAfter = Number(xhr.getResponseHeader("Retry-After"));
  try {
    return new SendError(status, JSON.parse(responseText).detail, retryAfter);
  } catch {
    return new SendError(status, "", retryAfter);
  }
}

/**
 * Attempt until it succeeds, or fails for a reason that does not pass by itself, which is thrown; UNREADABLE where one
 * of the `files` that are being sent is. Waits as long as the server asks, else longer from time to time, until the
 * browser is online, and from the start again once `attempt` has called what it is given. `tell` is called with what is
 * waited for, then with null.
 */
export async function persist(attempt, { files, signal, tell }) {
  let failures = 0;
  let doubtfulSince = null;
  for (;;) {
    try {
      return await attempt(() => {
        failures = 0;
        doubtfulSince = null;
      });
    } catch (error) {
      signal.throwIfAborted();
      const { status } = error;
      doubtfulSince = DOUBTFUL.has(status) ? doubtfulSince ?? Date.now() : null;
      const isOver = doubtfulSince !== null && Date.now() - doubtfulSince > PATIENCE_MS;
      if (isOver || !(PASSING.has(status) || DOUBTFUL.has(status))) throw error;
      if (status === 0) await Promise.all(files.map(requireReadable));
      tell(error);
      await pause(waitFor(error, failures++), signal);
      tell(null);
    }
  }
}

// not all at the same moment
function waitFor({ retryAfter }, failures) {
  if (retryAfter > 0) return Math.min(LONGEST_ASKED_MS, 1000 * retryAfter) + FIRST_WAIT_MS * Math.random();
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failures) * (0.5 + Math.random() / 2);
}

// to the network a file that has changed since it was chosen looks like a lost connection
async function requireReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new SendError(UNREADABLE);
  }
}

// a browser that is offline waits for as long as it is
function pause(milliseconds, signal) {
  const over = new AbortController();
  const options = { signal: over.signal };
  return new Promise((resolve, reject) => {
    setTimeout(() => navigator.onLine && resolve(), milliseconds);
    addEventListener("online", resolve, options);
    signal.addEventListener("abort", () => reject(signal.reason), options);
  }).finally(() => over.abort());
}

/** Upload one file that is not empty: `file`, `name`, `hash` in hex or null. Resolves to `objects`, `isNew`. */
export async function sendWhole(api, { file, name, hash }, options) {
  const headers = file.type ? { "Content-Type": file.type } : {};
  const address = `${hash ? `/${hash}` : "/v1/files"}?name=${encode(name)}`;
  return outcome(await send(api, hash ? "PUT" : "POST", address, { body: file, headers, ...options }));
}

/** Upload small files as one form, all or none; much faster than one by one. The `objects` are in their order. */
export async function sendTogether(api, uploads, options) {
  const boundary = crypto.getRandomValues(new Uint32Array(5)).join("-");
  const parts = uploads.flatMap(({ file, name }) => [
    `\r\n--${boundary}\r\nContent-Disposition: form-data; name="file"; filename*=UTF-8''${encode(name)}\r\n`,
    file.type ? `Content-Type: ${file.type}\r\n\r\n` : "\r\n",
    file,
  ]);
  const body = new Blob([...parts, `\r\n--${boundary}--\r\n`], { type: `multipart/form-data; boundary=${boundary}` });
  return outcome(await send(api, "POST", "/v1/files", { body, ...options }));
}

function outcome({ status, responseText }) {
  return { objects: [JSON.parse(responseText)].flat(), isNew: status === 201 };
}

function encode(name) {
  const escape = (sign) => `%${sign.charCodeAt().toString(16)}`;
  return encodeURIComponent(name.toWellFormed?.() ?? name).replace(/['()*]/g, escape);
}
