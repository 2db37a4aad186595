// What sort of thing a file is, by its media type: which icon it gets, and how it can be shown.

import { say } from "./words.js";

const PICTURES = /^image\/(png|jpeg|gif|webp|avif|bmp|svg\+xml|x-icon|vnd\.microsoft\.icon)$/;
const TEXTS = /^(text\/|application\/(json|xml|javascript|x-sh|x-yaml|yaml|toml|sql|x-ndjson)$)|\+(json|xml)$/;
const ARCHIVES = /zip|x-tar|gzip|x-7z|x-rar|vnd\.rar|zstd|x-xz|x-bzip/;

/** Return a file's kind: "image", "video", "audio", "text", "pdf", "archive" or "file". */
export function kindOf(file) {
  const type = file.type.split(";")[0].trim().toLowerCase();
  if (PICTURES.test(type)) return "image";
  if (type.startsWith("video/")) return "video";
  if (type.startsWith("audio/")) return "audio";
  if (type === "application/pdf") return "pdf";
  if (TEXTS.test(type)) return "text";
  return ARCHIVES.test(type) ? "archive" : "file";
}

/** Whether a name has a sign that can be seen: not only blanks, or signs without a width. */
export function isSeen(name) {
  return /[^\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/u.test(name ?? "");
}

/** Return a file's name, or words for a file without one that can be seen. */
export function nameOf(file) {
  return isSeen(file.name) ? file.name : say("unnamed", { hash: file.hash.slice(0, 8) });
}
