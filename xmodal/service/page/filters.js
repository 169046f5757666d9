// Filters: checkboxes for fields with few values, ranges for numbers and dates, and the active filters
// above the hits.

import {element, make} from "/page/dom.js";
import {number, t, valueText} from "/page/language.js";
import {isBound, query, setBound, setValue} from "/page/query.js";

const MAX_NAME = 2048, MAX_RANGES = 12; // characters of a field name in a filter of the service
const MIN_VALUES_OF_RANGE = 6; // with fewer values, checkboxes are enough
const DATE = /^[12]\d{3}-\d\d(-\d\d|$)/;
const ranges = new Map(); // field: {kind: "number" or "date", inputs}
const others = new Set(); // fields with a value that is neither
let changed = () => {};

/** `search` is called after each change of a filter. */
export function onFilterChange(search) {
  changed = search;
}

/** Fill the checkboxes from the fields of /v1/filters. */
export function fillFields(fields) {
  const usable = fields.filter(({name}) => name && name.length <= MAX_NAME);
  element("fields").replaceChildren(...usable.map(({name, values}) => make("fieldset", {},
    make("legend", {}, isolated(name.length > 200 ? `${[...name].slice(0, 100).join("")}…` : name)),
    ...values.map(({value, count}) => valueBox(name, value, count)))));
  for (const {name, values} of usable)
    if (values.length >= MIN_VALUES_OF_RANGE) learn(name, values.map(({value}) => value), isBound);
  showFilters();
}

function valueBox(field, value, count) {
  const box = make("input", {type: "checkbox"});
  box.filter = [field, value];
  box.onchange = () => {
    setValue(field, value, box.checked);
    changed();
  };
  return make("label", {}, box, isolated(value || t("emptyValue")), make("small", {}, number(count)));
}

/** Offer a range for each field of the hits with numbers or dates alone. */
export function learnRanges(hits) {
  for (const {fields} of hits)
    for (const [name, value] of Object.entries(fields))
      if (name !== "text" && name !== "image" && name && name.length <= MAX_NAME)
        learn(name, [value].flat(), (one) => typeof one === "number" || (typeof one === "string" && DATE.test(one)));
}

function learn(name, values, isKnown) {
  const present = values.filter((value) => value !== null);
  if (others.has(name) || !present.length) return;
  if (!present.every(isKnown)) {
    others.add(name);
    ranges.get(name)?.box.remove();
    ranges.delete(name);
    return;
  }
  if (ranges.has(name) || ranges.size >= MAX_RANGES) return;
  addRange(name, present.some((value) => DATE.test(value)) ? "date" : "number");
}

function addRange(name, kind) {
  const inputs = ["from", "to"].map((side) => {
    const input = make("input", {type: kind, step: "any"});
    if (kind === "date") input.removeAttribute("step");
    input.setAttribute("aria-label", `${name.slice(0, 100)}: ${t(side)}`);
    input.onchange = () => {
      setBound(name, side, input.value);
      changed();
    };
    return input;
  });
  const box = make("fieldset", {className: "range"}, make("legend", {}, isolated(name.length > 200 ? `${[...name].slice(0, 100).join("")}…` : name)),
    make("div", {}, inputs[0], make("span", {}, "–"), inputs[1]));
  ranges.set(name, {box, inputs});
  element("ranges").append(box);
  element("filters").hidden = false;
  showRange(name);
}

function showRange(name) {
  const {from = "", to = ""} = query.ranges.get(name) ?? {};
  const [first, last] = ranges.get(name).inputs;
  first.value = from;
  last.value = to;
}

/** Show the active filters. */
export function showFilters() {
  const chips = [];
  for (const [field, values] of query.values)
    for (const value of values)
      chips.push(chip(`${field}: ${value || t("emptyValue")}`, () => setValue(field, value, false)));
  for (const [field, {from, to}] of query.ranges)
    chips.push(chip(`${field}: ${valueText(from || "")} – ${valueText(to || "")}`,
      () => query.ranges.delete(field)));
  element("chips").replaceChildren(...chips);
  element("chips").hidden = element("clear").hidden = !chips.length;
  element("filters-count").textContent = chips.length ? `(${number(chips.length)})` : "";
  element("filters").hidden = !chips.length && !element("fields").childElementCount && !ranges.size;
  for (const box of element("fields").querySelectorAll("input")) {
    const [field, value] = box.filter;
    box.checked = query.values.get(field)?.has(value) ?? false;
  }
  for (const name of ranges.keys()) showRange(name);
}

function chip(text, remove) {
  const button = make("button", {className: "chip", type: "button"}, isolated(text), make("span", {ariaHidden: "true"}, " ×"));
  button.setAttribute("aria-label", t("removeFilter", {filter: text}));
  button.onclick = () => {
    remove();
    changed();
    element("results").focus({preventScroll: true});
  };
  return make("li", {}, button);
}

/** An element whose text does not change the direction of the text around it. */
export const isolated = (text) => make("bdi", {}, text);
