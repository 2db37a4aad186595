// Uploads one file by tus-js-client in Node. Takes one JSON argument, prints one JSON line for each thing that happens.
//
// PACKAGES (environment) is the folder node_modules. The argument:
//   file      path of the file to upload
//   source    "buffer", "stream" (fs.createReadStream) or "pipe" (a stream without a length)
//   settings  options of tus.Upload: endpoint, chunkSize, headers, metadata, …
//   urls      path of the file that remembers uploads, for tus.FileUrlStorage
//   resume    whether to go on with a remembered upload of this file; it is an error when there is none
//   abortAt   stop as soon as that many bytes are sent
//   terminate whether stopping also deletes the upload
import fs from "node:fs";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";

const require = createRequire(`${process.env.PACKAGES}/`);
const tus = require("tus-js-client");

/** Print one event for the test to read. */
function tell(event, facts = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`);
}

/** Return what tus.Upload reads from. */
function open(file, source) {
  if (source === "buffer") return fs.readFileSync(file);
  const stream = fs.createReadStream(file);
  return source === "pipe" ? stream.pipe(new PassThrough()) : stream;
}

/** Return the answer's header fields that a test asks about. */
function fieldsOf(answer) {
  return { status: answer.getStatus(), hash: answer.getHeader("Filestored-Hash"), offset: answer.getHeader("Upload-Offset") };
}

/** Upload as told. */
async function run({ file, source, settings, urls, resume, abortAt, terminate }) {
  let isStopped = false;
  const upload = new tus.Upload(open(file, source), {
    ...settings,
    ...(urls ? { urlStorage: new tus.FileUrlStorage(urls) } : {}),
    onAfterResponse: (request, answer) => tell("answer", { method: request.getMethod(), url: request.getURL(), ...fieldsOf(answer) }),
    onSuccess: () => tell("success", { url: upload.url }),
    onError: (error) => tell("error", { message: error.message, status: error.originalResponse?.getStatus() ?? 0 }),
    onProgress: (sent, total) => {
      tell("progress", { sent, total });
      if (!abortAt || sent < abortAt || isStopped) return;
      isStopped = true;
      upload.abort(Boolean(terminate)).then(() => tell("stopped", { url: upload.url }), (error) => tell("error", { message: error.message }));
    },
  });
  if (resume) {
    const [previous] = await upload.findPreviousUploads();
    if (!previous) throw new Error("nothing to resume");
    upload.resumeFromPreviousUpload(previous);
  }
  upload.start();
}

await run(JSON.parse(process.argv[2]));
