// A classic script in the head: what must be known before anything is painted, the colours and the language.
"use strict";

(() => {
  const kept = (name) => {
    try {
      return localStorage.getItem(`filestored.${name}`);
    } catch {
      // storage switched off: the system's choice holds
      return null;
    }
  };
  const root = document.documentElement;
  const theme = kept("theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  const wanted = [kept("language"), ...navigator.languages].map((tag) => tag?.slice(0, 2).toLowerCase());
  root.lang = wanted.find((tag) => tag === "en" || tag === "ru") ?? "en";
  const words = document.createElement("link");
  words.rel = "modulepreload";
  words.href = `/web/page-words-${root.lang}.js`;
  document.head.append(words);
})();
