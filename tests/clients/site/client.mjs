// What another web site does with tus-js-client and Uppy; the test makes one file of it and of the packages.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";
import * as tus from "tus-js-client";

const input = document.querySelector("input");
const output = document.querySelector("output");

/** Write the outcome where the test waits for it. */
function tell(outcome) {
  output.textContent = JSON.stringify(outcome);
}

/** Upload the chosen file by tus-js-client; go on with an upload that this browser remembers if there is one. */
async function uploadByTus(settings) {
  const requests = [];
  const upload = new tus.Upload(input.files[0], {
    ...settings,
    onAfterResponse: (request, answer) => requests.push([request.getMethod(), answer.getStatus(), answer.getHeader("Filestored-Hash")]),
    onProgress: (sent) => document.body.setAttribute("data-sent", sent),
    onSuccess: () => tell({ urls: [upload.url], requests }),
    onError: (error) => tell({ error: error.message, status: error.originalResponse?.getStatus() ?? 0, requests }),
  });
  const [previous] = await upload.findPreviousUploads();
  if (previous) upload.resumeFromPreviousUpload(previous);
  upload.start();
}

/** Upload all chosen files by Uppy. */
async function uploadByUppy(settings) {
  const uppy = new Uppy().use(Tus, settings);
  for (const file of input.files) uppy.addFile({ name: file.name, type: file.type, data: file });
  const { successful, failed } = await uppy.upload();
  tell({ urls: successful.map((file) => file.uploadURL), failed: failed.map((file) => file.error) });
}

window.uploadByTus = (settings) => void uploadByTus(settings);
window.uploadByUppy = (settings) => void uploadByUppy(settings);
