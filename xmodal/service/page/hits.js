// The hits, and the dialog with one document and the reasons why it was found.

import {element, make} from "/page/dom.js";
import {isolated} from "/page/filters.js";
import {number, percent, t, valueText} from "/page/language.js";
import {showPicture} from "/page/pictures.js";
import {setValue} from "/page/query.js";

const MAX_CAPTION = 300, MAX_TEXT = 10_000, MAX_VALUE = 200; // characters that are shown
const cards = new Map(); // of the hits shown, by document
let shown = {hits: [], bits: 0}, opened = -1;
let actions = {moreLike() {}, filtered() {}};

/** `moreLike(id)` and `filtered()` are called by buttons of hits. */
export function onHitActions(given) {
  actions = given;
}

export const keyOf = (hit) => JSON.stringify([hit.index ?? "", hit.id]);

/** Show hits. Cards of documents that were shown before are kept, so that pictures do not flicker. */
export function showHits(hits, bits = 0) {
  const active = document.activeElement, focused = active?.closest("#hits > li");
  shown = {hits, bits};
  const keys = new Set(hits.map(keyOf));
  for (const [key, card] of cards)
    if (!keys.has(key)) {
      card.item.remove();
      cards.delete(key);
    }
  hits.forEach((hit, position) => {
    const key = keyOf(hit);
    if (!cards.has(key)) cards.set(key, new Card());
    const {item} = cards.get(key);
    cards.get(key).show(hit, position);
    const present = element("hits").children[position];
    if (present !== item) element("hits").insertBefore(item, present ?? null);
  });
  if (!focused) return;
  const kept = focused.isConnected ? active : element("results"); // a card that was moved has no focus
  if (document.activeElement !== kept) kept.focus({preventScroll: true});
}

class Card {
  constructor() {
    this.caption = make("span", {className: "caption", dir: "auto"});
    this.frame = make("span", {className: "frame"}); // of the picture
    this.open = make("button", {className: "open", type: "button"}, this.frame, this.caption);
    this.foot = make("div", {className: "foot"});
    this.like = make("button", {className: "like link", type: "button"}, t("like"));
    this.item = make("li", {className: "hit"}, this.open, this.foot, this.like);
  }

  show(hit, position) {
    const name = captionOf(hit);
    if (this.path !== hit.picture) {
      const picture = hit.picture ? make("img", {alt: "", loading: "lazy", decoding: "async"})
        : make("span", {className: "none"}, t("noPicture"));
      this.frame.replaceChildren(picture);
      if (hit.picture) showPicture(picture, hit.picture);
      this.path = hit.picture;
    }
    this.caption.replaceChildren(...marked(shortened(name, MAX_CAPTION), hit.matched));
    this.foot.replaceChildren(...reasons(hit));
    this.like.setAttribute("aria-label", t("likeThis", {name: shortened(name, MAX_VALUE)}));
    this.open.onclick = () => openDocument(position);
    this.like.onclick = () => actions.moreLike(hit.id);
  }
}

function captionOf(hit) {
  const texts = [hit.nearest?.text, [ownField(hit, "text")].flat()[0], hit.id];
  return texts.map((one) => (typeof one === "string" ? one : one == null ? "" : valueText(one)))
    .find((text) => text.trim()) ?? t("unnamed");
}

const ownField = (hit, name) => (Object.hasOwn(hit.fields, name) ? hit.fields[name] : undefined);

/** The beginning of a long text, with its length. */
function shortened(text, length) {
  if (text.length <= length) return text;
  const start = [...text.slice(0, length)].slice(0, -1).join(""); // no half of a surrogate pair
  return `${start} ${t("longText", {n: text.length})}`;
}

/** The parts of a text, in which the words that the query has too are marked. */
function marked(text, words = []) {
  const parts = words.filter(Boolean).map((word) => {
    const escaped = word.replace(/[\\^$.*+?()[\]{}|\/-]/g, "\\$&");
    // Scripts without spaces have no borders of words; English plurals are found by the singular.
    return /^[\x20-\x7e]+$/.test(word) ? `(?<![\\p{L}\\p{N}])${escaped}(?:e?s)?(?![\\p{L}\\p{N}])` : escaped;
  });
  if (!parts.length) return [text];
  const pattern = new RegExp(`(${parts.join("|")})`, "giu");
  return text.split(pattern).map((part, n) => (n % 2 ? make("mark", {}, part) : part));
}

/** One line on a card: confidence, or the distance; ranks of a fused search. */
function reasons(hit) {
  const parts = [];
  if (hit.confidence !== null) {
    const bar = make("meter", {min: 0, max: 1, value: hit.confidence, ariaHidden: "true"});
    parts.push(bar, make("span", {}, t("confidenceOf", {share: percent(hit.confidence)})));
  }
  parts.push(make("span", {}, t("distance", {n: hit.distance})));
  const ranks = [];
  if (hit.ranks?.codes) ranks.push(t("rankCodes", {n: hit.ranks.codes}));
  if (hit.ranks?.words) ranks.push(t("rankWords", {n: hit.ranks.words}));
  if (ranks.length) parts.push(make("span", {className: "ranks"}, ranks.join(" · ")));
  return parts;
}

// ---- one document -----------------------------------------------------------------------------

export const isOpen = () => element("document").open;

export function openDocument(position) {
  if (!shown.hits[position]) return;
  opened = position;
  const hit = shown.hits[position], name = captionOf(hit);
  const picture = make("img", {alt: shortened(name, MAX_CAPTION)});
  element("document-picture").replaceChildren(...(hit.picture ? [picture] : []));
  if (hit.picture) showPicture(picture, `${hit.picture}&size=1024`);
  element("document-title").replaceChildren(...marked(shortened(name, MAX_TEXT), hit.matched));
  element("document-why").replaceChildren(...why(hit).flatMap(([term, ...text]) =>
    [make("dt", {}, t(term)), make("dd", {}, ...text)]));
  element("document-fields").replaceChildren(...details(hit));
  element("position").textContent = t("position", {n: position + 1, all: shown.hits.length});
  element("previous").disabled = position === 0;
  element("next").disabled = position === shown.hits.length - 1;
  element("like").onclick = () => {
    element("document").close();
    actions.moreLike(hit.id);
  };
  if (!isOpen()) element("document").showModal();
  element("document").scrollTop = 0;
  element("document-title").focus({preventScroll: true});
}

/** Open the hit before or after the open one. */
export const openNext = (step) => openDocument(opened + step);

element("document").addEventListener("close", () => {
  cards.get(shown.hits[opened] && keyOf(shown.hits[opened]))?.open.focus();
});

function why(hit) {
  const lines = [];
  if (hit.confidence !== null)
    lines.push(["whyConfidence", t("whyConfidenceText", {share: percent(hit.confidence)})]);
  lines.push(["whyDistance", t("whyDistanceText", {n: hit.distance, bits: number(shown.bits)})]);
  if (hit.similarity !== null) lines.push(["whySimilarity", valueText(Math.round(1000 * hit.similarity) / 1000)]);
  if (hit.ranks)
    for (const [term, rank] of [["whyCodes", hit.ranks.codes], ["whyWords", hit.ranks.words]])
      lines.push([term, rank ? number(rank) : t("notRanked")]);
  if (hit.matched?.length) lines.push(["whyMatched", ...hit.matched.map((word) => make("mark", {}, word))]);
  const several = ["text", "image"].some((name) => Array.isArray(ownField(hit, name)));
  if (hit.nearest && several) lines.push(["whyNearest", t("whyNearestText", {n: hit.nearest.position + 1})]);
  return lines;
}

function details(hit) {
  const entries = Object.entries(hit.fields).map(([name, value]) => [
    make("dt", {}, isolated(shortened(name, MAX_VALUE))), make("dd", {dir: "auto"}, ...valuesOf(name, value))]);
  const identity = [["id", hit.id], ["index", hit.index]].filter(([, value]) => value !== undefined)
    .map(([term, value]) => [make("dt", {}, t(term)), make("dd", {}, isolated(value))]);
  return [...identity, ...entries].flat();
}

/** The values of a field; a short one is a button that filters by it. */
function valuesOf(name, value) {
  const values = Array.isArray(value) ? value : [value];
  const lines = values.slice(0, 100).map((one) => {
    const text = shortened(valueText(one), MAX_TEXT);
    const isFilter = name && name.length <= 2048 && !["text", "image"].includes(name) && one !== null
      && typeof one !== "object" && text.length <= MAX_VALUE;
    if (!isFilter) return make("div", {}, text);
    const button = make("button", {className: "value link", type: "button"}, isolated(text || t("emptyValue")));
    button.title = t("onlyThis", {filter: `${name}: ${text}`});
    button.onclick = () => {
      setValue(name, String(one), true);
      element("document").close();
      actions.filtered();
    };
    return button;
  });
  if (values.length > 100) lines.push(make("div", {}, `… (${number(values.length)})`));
  return lines;
}

/** The id of the hit whose card has the focus. */
export function focusedId() {
  const item = document.activeElement?.closest("#hits > li");
  return item ? shown.hits[[...element("hits").children].indexOf(item)]?.id : undefined;
}
