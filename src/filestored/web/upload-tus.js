// Resumable uploads by tus 1.0.0: what the server has got stays there, and the rest is sent when it can be.

import { SendError, persist, send } from "./upload-send.js";

/** Bytes sent in one request. */
const PIECE = 16 << 20;

const PATIENCE_MS = 30_000;
const VERSION = { "Tus-Resumable": "1.0.0" };
const GONE = new Set([404, 410]);

/**
 * Upload a file from where its `address` has got to, and return its hash. `progress` is called with the bytes that the
 * server has; `remember` with the address, null where the server has forgotten it, and how far it is; `tell` as by
 * persist. Rejects with what does not pass by itself.
 */
export function sendResumable(api, upload, { signal, progress, tell, remember }) {
  const { file } = upload;
  const settle = async ({ offset, hash }) => {
    await remember(upload.address, offset);
    progress(offset);
    return { offset, hash };
  };
  const begin = async () => {
    if (upload.address) return settle(await ask(api, upload.address, signal));
    await remember(await create(api, upload, signal), 0);
    return { offset: 0, hash: null };
  };
  const attempt = async (further) => {
    try {
      let at = await begin();
      while (!at.hash) {
        const report = (loaded) => progress(at.offset + loaded);
        at = await settle(await sendPiece(api, upload.address, file, at.offset, { signal, progress: report }));
        further();
      }
      return at.hash;
    } catch (error) {
      if (!GONE.has(error.status) || !upload.address) throw error;
      await remember(null, 0);
      throw new SendError(0);
    }
  };
  return persist(attempt, { files: [file], signal, tell });
}

/** Ask how far an upload is: `offset` in bytes, and its `hash` once it is complete. Throws ApiError. */
export async function ask(api, address, signal) {
  const { headers } = await api.request("HEAD", address, { headers: VERSION, signal });
  return { offset: Number(headers.get("Upload-Offset")), hash: headers.get("Filestored-Hash") };
}

/** Have the server forget an upload. Where it cannot be told it will do so by itself, in time. */
export async function discard(api, address) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const erase = () => api.request("DELETE", address, { headers: VERSION, signal });
  await persist(erase, { files: [], signal, tell: () => {} }).catch(() => null);
}

async function create(api, { file, size, name, hash }, signal) {
  const metadata = Object.entries({ filename: name, filetype: file.type, hash })
    .filter(([, value]) => value)
    .map(([key, value]) => `${key} ${base64(value)}`);
  const headers = { ...VERSION, "Upload-Length": `${size}`, "Upload-Metadata": metadata.join() };
  const answer = await api.request("POST", "/v1/uploads", { headers, signal });
  return new URL(answer.headers.get("Location"), location.href).pathname;
}

async function sendPiece(api, address, file, offset, options) {
  const headers = { ...VERSION, "Content-Type": "application/offset+octet-stream", "Upload-Offset": `${offset}` };
  const xhr = await send(api, "PATCH", address, { body: file.slice(offset, offset + PIECE), headers, ...options });
  const reached = Number(xhr.getResponseHeader("Upload-Offset"));
  const hash = xhr.getResponseHeader("Filestored-Hash");
  // an answer that tells of no progress would be asked for without end
  if (reached <= offset && !hash) throw new SendError(0);
  return { offset: reached, hash };
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
