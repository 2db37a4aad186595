// What the page says once something is opened or done.

import { addWords } from "./words.js";

await addWords((language) => import(`./dialog-words-${language}.js`));
