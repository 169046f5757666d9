// The query: words, a picture or a document, filters and options. The URL holds all of it except the
// picture, which is kept in this tab.

import {element} from "/page/dom.js";

export const PAGE_SIZE = 24, MAX_K = 1000; // hits of one request
const MAX_ID_LENGTH = 2048, MAX_FILTERS = 32, MAX_VALUES = 256; // limits of the service
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i, DATE = /^[12]\d{3}(-\d\d(-\d\d)?)?$/;

/** like: id of a document. picture: {data, url, name, number}. values and ranges: conditions by field,
 * of which each has a Set of texts, or {from, to}. k: number of hits. */
export const query = {like: null, picture: null, values: new Map(), ranges: new Map(), k: PAGE_SIZE};

export const target = () => document.querySelector("[name=target]:checked").value;
export const words = () => element("words").value.trim();
export const isBound = (text) => NUMBER.test(text) || DATE.test(text);

/** The text of the limit of the service that the query exceeds, or null. */
export function exceedsLimits() {
  if (query.like !== null && [...query.like].length > MAX_ID_LENGTH) return "idTooLong";
  const fields = new Set([...query.values.keys(), ...query.ranges.keys()]);
  const isTooMany = fields.size > MAX_FILTERS || [...query.values.values()].some(({size}) => size > MAX_VALUES);
  return isTooMany ? "tooManyFilters" : null;
}

/** The body of /v1/search without k and offset, or null without a query. */
export function toBody() {
  const body = {target: target()}, typed = words();
  if (query.like !== null) body.like = query.like;
  else if (query.picture) body.image = query.picture.data;
  if (typed) body.typed = typed;
  if (!typed && body.like === undefined && body.image === undefined) return null;
  const crossModal = body.like === undefined && !/(^|\s)-("[^"]*[\p{L}\p{N}_][^"]*"|[\p{L}\p{N}_])/u.test(typed)
    && (body.target === "image" ? body.image === undefined : body.image !== undefined && !typed);
  const confidence = element("confidence");
  confidence.disabled = !crossModal;
  if (crossModal && confidence.value) body.min_confidence = Number(confidence.value);
  if (query.values.size || query.ranges.size) body.where = where();
  if (typed && element("by").value) body.by = element("by").value;
  return body;
}

/** The filters as the service reads them. Field names may be any text, also "__proto__". */
function where() {
  const conditions = [];
  for (const field of new Set([...query.values.keys(), ...query.ranges.keys()])) {
    const values = query.values.has(field) ? [...query.values.get(field)] : null;
    const {from, to} = query.ranges.get(field) ?? {};
    const range = {...(from && {gte: from}), ...(to && {lte: to})};
    if (!query.ranges.has(field)) conditions.push([field, values]);
    else conditions.push([field, values ? {all: [values, range]} : range]);
  }
  return Object.fromEntries(conditions);
}

export function toURL() {
  const parts = new URLSearchParams();
  if (query.like !== null) parts.set("like", query.like);
  if (words()) parts.set("q", words());
  if (target() !== "image") parts.set("find", target());
  if (element("confidence").value) parts.set("sure", element("confidence").value);
  if (element("by").value) parts.set("by", element("by").value);
  for (const [field, values] of query.values)
    for (const value of values) parts.append(`where.${field}`, value);
  for (const [field, range] of query.ranges)
    for (const side of ["from", "to"])
      if (range[side]) parts.append(`${side}.${field}`, range[side]);
  return parts.size ? `/?${parts}` : "/";
}

export function readURL() {
  const parts = new URLSearchParams(location.search);
  element("words").value = parts.get("q") ?? "";
  query.like = parts.get("like") || null;
  query.values.clear();
  query.ranges.clear();
  for (const [name, value] of parts) {
    const [, kind, field] = /^(where|from|to)\.([^]+)$/.exec(name) ?? [];
    if (kind === "where") setValue(field, value, true);
    else if (kind) setBound(field, kind, value);
  }
  for (const radio of document.querySelectorAll("[name=target]"))
    radio.checked = radio.value === (parts.get("find") === "text" ? "text" : "image");
  for (const [id, name] of [["confidence", "sure"], ["by", "by"]]) {
    element(id).value = parts.get(name) ?? "";
    if (element(id).selectedIndex < 0) element(id).value = ""; // not one of the options
  }
}

/** Add or remove a value of a field, of which a document must have one. */
export function setValue(field, value, isWanted) {
  const values = query.values.get(field) ?? new Set();
  values[isWanted ? "add" : "delete"](value);
  if (values.size) query.values.set(field, values);
  else query.values.delete(field);
}

/** Set the bound "from" or "to" of a field; other texts than numbers and dates remove it. */
export function setBound(field, side, text) {
  const range = {...query.ranges.get(field), [side]: isBound(text) ? text : ""};
  if (range.from || range.to) query.ranges.set(field, range);
  else query.ranges.delete(field);
}

export function clearFilters() {
  query.values.clear();
  query.ranges.clear();
}
