// Keyboard shortcuts.

import {element, make, stored} from "/page/dom.js";
import {focusedId, isOpen, openNext} from "/page/hits.js";
import {t} from "/page/language.js";

const LIST = [
  [["/"], "keyWords"], [["←", "→", "↑", "↓"], "keyArrows"], [["Enter"], "keyOpen"],
  [["←", "→"], "keyMove"], [["s"], "keyLike"], [["n"], "keyMore"], [["p"], "keyPicture"], [["t"], "keyTarget"],
  [["f"], "keyFilters"], [["Esc"], "keyReset"], [["?"], "keyHelp"],
];
const switched = stored("localStorage", "xmodal-keys");

/** Handle keys. `moreLike(id)` and `reset()` are actions of the page. */
export function handleKeys({moreLike, reset}) {
  element("keys-list").replaceChildren(...LIST.flatMap(([keys, text]) => [
    make("dt", {}, ...keys.map((key) => make("kbd", {}, key))), make("dd", {}, t(text))]));
  element("keys-on").checked = switched.get() !== "off";
  element("keys-on").onchange = () => switched.set(element("keys-on").checked ? "on" : "off");
  element("help").onclick = () => element("keys").showModal();
  const single = { // keys that are letters or signs, which can be switched off
    "/": () => element("words").select(),
    "?": () => element("keys").showModal(),
    s: () => focusedId() !== undefined && moreLike(focusedId()),
    n: () => element("more").hidden || element("more").click(),
    p: () => element("file").click(),
    t: () => document.querySelector("[name=target]:not(:checked)").click(),
    f: () => {
      element("filters-box").open = true;
      element("filters-box").querySelector("summary").focus();
    },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (isOpen() && step) {
      event.preventDefault();
      openNext(step);
    }
    if (document.querySelector("dialog[open]")) return;
    const active = document.activeElement;
    const isTyping = active.matches("select, textarea, input:not([type=checkbox], [type=radio], [type=file])");
    if (event.key === "Escape" && !element("query").hidden) reset();
    else if (event.key.startsWith("Arrow")) moveFocus(event);
    else if (!isTyping && element("keys-on").checked && Object.hasOwn(single, event.key)) {
      event.preventDefault();
      single[event.key]();
    }
  });
}

/** Move the focus between the words and the hits. */
function moveFocus(event) {
  const hits = [...document.querySelectorAll(".open")];
  const active = document.activeElement, position = hits.indexOf(active);
  if (event.key === "ArrowDown" && active === element("words") && hits.length) {
    event.preventDefault();
    hits[0].focus();
  } else if (position >= 0) {
    const columns = getComputedStyle(element("hits")).gridTemplateColumns.split(" ").length;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
    event.preventDefault();
    if (position + step < 0) element("words").focus();
    else hits[position + step]?.focus();
  }
}
