// Small pictures of images, drawn as their rows come into view, a few at a time.

import { make } from "./dom.js";
import { kindOf } from "./kinds.js";

const MAX_BYTES = 12_000_000;
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
    const bitmap = await createImageBitmap(await answer.blob());
    const side = Math.min(bitmap.width, bitmap.height);
    const canvas = make("canvas", { width: SIDE, height: SIDE });
    const brush = canvas.getContext("2d");
    brush.imageSmoothingQuality = "high";
    const [left, top] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
    brush.drawImage(bitmap, left, top, side, side, 0, 0, SIDE, SIDE);
    bitmap.close();
    element.replaceChildren(canvas);
  }
}
