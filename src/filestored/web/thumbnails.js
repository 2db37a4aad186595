// Small pictures of images, drawn as their rows come into view, a few at a time.

import { make } from "./dom.js";
import { kindOf } from "./kinds.js";

const MAX_BYTES = 12_000_000;
// a file of a few kilobytes may hold gigabytes of them
const MAX_PIXELS = 40_000_000;
const AT_ONCE = 3;
const SIDE = 80;

/** Draws the pictures of image files into the elements they are asked for. */
export class Thumbnails {
  #waiting = [];
  #underWay = 0;
  #files = new WeakMap();
  #watch = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: "200px" });

  constructor(api) {
    this.api = api;
  }

  /** Have the picture of a file take the place of what is in `element`, once that is in view. */
  want(element, file) {
    if (kindOf(file) !== "image" || file.type.startsWith("image/svg") || file.size > MAX_BYTES) return;
    this.#files.set(element, file);
    this.#watch.observe(element);
  }

  /** Forget what is waiting: the rows are gone. */
  clear() {
    this.#watch.disconnect();
    this.#waiting = [];
  }

  #see(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#waiting.push(target);
      else this.#waiting = this.#waiting.filter((element) => element !== target);
    }
    this.#go();
  }

  #go() {
    while (this.#waiting.length && this.#underWay < AT_ONCE) {
      const element = this.#waiting.shift();
      this.#watch.unobserve(element);
      this.#underWay += 1;
      this.#draw(element).catch(() => {
        // a picture that cannot be had leaves the icon; opening the file tells why
      }).finally(() => {
        this.#underWay -= 1;
        this.#go();
      });
    }
  }

  async #draw(element) {
    const answer = await this.api.request("GET", `/${this.#files.get(element).hash}`);
    const url = URL.createObjectURL(await answer.blob());
    try {
      const bitmap = await middleOf(url);
      const canvas = make("canvas", { width: SIDE, height: SIDE });
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      element.replaceChildren(canvas);
    } finally {
      URL.revokeObjectURL(url);
    }
  }
}

/** Return the middle square of a picture, made small. Throws where it has too many pixels, before these are made. */
async function middleOf(url) {
  const picture = new Image();
  picture.src = url;
  // that far only its head has been read
  await new Promise((resolve, reject) => Object.assign(picture, { onload: resolve, onerror: reject }));
  const { naturalWidth: width, naturalHeight: height } = picture;
  if (width * height > MAX_PIXELS) throw new RangeError("too many pixels");
  const side = Math.min(width, height);
  const size = { resizeWidth: SIDE, resizeHeight: SIDE, resizeQuality: "high" };
  return createImageBitmap(picture, Math.floor((width - side) / 2), Math.floor((height - side) / 2), side, side, size);
}
