// Hashes files beside the page: takes `{id, file, name}`, answers `{id, hash}`, with null where it could not.

import { digest } from "./upload-digest.js";

addEventListener("message", async ({ data: { id, file, name } }) => {
  postMessage({ id, hash: await digest(file, name).catch(() => null) });
});
