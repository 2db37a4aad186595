// What is said about uploads.

import { addWords } from "./words.js";

await addWords((language) => import(`./upload-words-${language}.js`));
