// Texts, numbers and dates in the language of the browser.

import {TEXTS} from "/page/texts.js";

const locale = navigator.languages.find((one) => Object.hasOwn(TEXTS, one.split("-")[0])) ?? "en";
export const language = locale.split("-")[0];
const texts = TEXTS[language];
const plural = new Intl.PluralRules(locale);
const numbers = new Intl.NumberFormat(locale);
const plainNumbers = new Intl.NumberFormat(locale, {useGrouping: false, maximumFractionDigits: 20});
const shares = new Intl.NumberFormat(locale, {style: "percent", maximumFractionDigits: 0});

/** The text of a key. A number `n` selects the plural form; numbers are formatted. */
export function t(key, values = {}) {
  const text = texts[key];
  const form = typeof text === "string" ? text : text[plural.select(values.n)] ?? text.other;
  return form.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? number(values[name]) : values[name]);
}

export const number = (value) => numbers.format(value);

/** A probability in percent: "91%". */
export const percent = (share) =>
  share > 0 && share < 0.01 ? t("below", {share: shares.format(0.01)}) : shares.format(share);

const DATE = /^([12]\d{3})-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::\d\d(?:[.,]\d+)?)?(.*))?)?$/;

/** The text of a value of a document: numbers without grouping, dates of ISO 8601 as written there,
 * without a conversion of time zones. */
export function valueText(value) {
  if (typeof value === "number") return plainNumbers.format(value);
  if (typeof value !== "string") return json(value);
  const found = value.length < 40 && DATE.exec(value);
  if (!found) return value;
  const [, year, month, day, hour, minute, zone] = found;
  const time = new Date(Date.UTC(year, month - 1, day ?? 1, hour ?? 0, minute ?? 0));
  if (time.getUTCMonth() !== month - 1 || hour > 23 || minute > 59) return value; // 2024-02-31
  const style = hour ? {dateStyle: "medium", timeStyle: "short"}
    : day ? {dateStyle: "medium"} : {year: "numeric", month: "long"};
  const text = new Intl.DateTimeFormat(locale, {...style, timeZone: "UTC"}).format(time);
  return zone ? `${text} ${zone === "Z" ? "UTC" : zone}` : text;
}

function json(value) {
  try {
    return JSON.stringify(value);
  } catch { // nested too deeply for the browser
    return "…";
  }
}

/** Fill the elements of the page that name their texts. */
export function translate() {
  document.documentElement.lang = locale;
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-text]"))
    element.textContent = t(element.dataset.text);
  for (const [name, attribute] of [["label", "aria-label"], ["hint", "placeholder"], ["tip", "title"]])
    for (const element of document.querySelectorAll(`[data-${name}]`))
      element.setAttribute(attribute, t(element.dataset[name]));
}
