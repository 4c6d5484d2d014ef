// What is announced to everybody, as each page shows it.

import { attr, el } from "./dom.js";

/**
 * Show it, or nothing. `note` says of whom it is and until when; `makeButton` makes
 * what stands beside it.
 */
export function drawAnnouncement(shown, told, note = "", makeButton = null) {
  const key = told ? `${told}\n${note}` : "";
  shown.hidden = !told;
  if ((shown.dataset.key ?? "") === key) return;
  attr(shown, "data-key", key);
  if (!told) {
    shown.replaceChildren();
    return;
  }
  const parts = [el("p", { class: "text", text: told })];
  if (note) parts.push(el("p", { class: "note", text: note }));
  if (makeButton) parts.push(makeButton());
  shown.replaceChildren(...parts);
}
