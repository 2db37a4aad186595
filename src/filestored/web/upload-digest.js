// Hashing.

/** Return the hash of a Blob in hex; `algorithm` as `crypto.subtle` names it. Throws where it cannot be read. */
export async function digest(file, algorithm) {
  const bytes = new Uint8Array(await crypto.subtle.digest(algorithm, await file.arrayBuffer()));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
