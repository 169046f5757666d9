// The search page: searches, the history of the browser, and the start.

import {callJson, Problem, requestToken} from "/page/api.js";
import {element, make, stored} from "/page/dom.js";
import {fillFields, learnRanges, onFilterChange, showFilters} from "/page/filters.js";
import {keyOf, onHitActions, openNext, showHits} from "/page/hits.js";
import {handleKeys} from "/page/keyboard.js";
import {percent, t, translate} from "/page/language.js";
import {acceptPictures, readPicture, showPicture} from "/page/pictures.js";
import {clearFilters, exceedsLimits, MAX_K, PAGE_SIZE, query, readURL, toBody, toURL, words} from "/page/query.js";

const TYPING_PAUSE = 30; // milliseconds after a key until the search starts, if others came just before it
const FAST_TYPING = 100; // milliseconds between keys; after a longer time a key is searched at once
const SLOW = 500; // milliseconds until a search is shown as running
const ANNOUNCE_PAUSE = 800; // milliseconds without a change until a screen reader reads the status
const live = stored("localStorage", "xmodal-live");
const pictures = new Map(); // query pictures of this tab by number
let about = null, running = null, typingTimer = 0, lastKey = 0, announceTimer = 0;
let last = null; // what is shown: {body, found}

// ---- searches ---------------------------------------------------------------------------------

/** Search by the query that the page shows; the search before it is aborted. `scroll`: position after
 * it. `isTyping`: an error is written to the status, because the words may be incomplete. `before`: what
 * is shown, to which the next hits are added. */
async function search({scroll = null, isTyping = false, before = null} = {}) {
  clearTimeout(typingTimer);
  running?.abort();
  running = null;
  showQuery();
  showFilters();
  element("problem").hidden = true;
  const body = before?.body ?? toBody(), url = toURL();
  if (!body) {
    finish(url, [], about ? t("indexed", {n: about.documents}) : "");
    element("start").hidden = false;
    return;
  }
  const limit = exceedsLimits();
  if (limit) {
    finish(url, [], "");
    showProblem(new Problem(t(limit)));
    return;
  }
  const controller = running = new AbortController();
  element("results").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => showStatus(t("searching")), SLOW);
  try {
    const found = await findHits(body, controller.signal, before?.found);
    if (running !== controller) return; // a later search has started
    finish(url, found.hits, statusOf(found, body), found.bits);
    last = {body, found};
    element("more").hidden = found.next === null;
    learnRanges(found.hits);
    if (scroll !== null) scrollTo(0, scroll);
  } catch (error) {
    if (running !== controller) return;
    if (before) element("results").removeAttribute("aria-busy");
    else finish(url, [], "");
    if (isTyping && error.status === 422) showStatus(error.detail || error.message);
    else showProblem(error);
  } finally {
    clearTimeout(slow);
    if (running === controller) running = null;
  }
}

/** The first `query.k` hits, page by page; `found`: those that are known. */
async function findHits(body, signal, found = null) {
  do {
    const offset = found?.next ?? 0, before = found?.hits ?? [];
    const k = Math.max(1, Math.min(MAX_K, query.k - offset));
    const page = await callJson("/v1/search", {body: {...body, k, ...(offset && {offset})}, signal});
    const known = new Set(before.map(keyOf)); // the index may have changed between two pages
    found = {...page, hits: [...before, ...page.hits.filter((hit) => !known.has(keyOf(hit)))]};
  } while (found.next !== null && found.next < query.k);
  return found;
}

/** Show the hits of a query; `url`: its address. */
function finish(url, hits, status, bits = 0) {
  last = null;
  showHits(hits, bits);
  element("hits").dataset.query = url;
  element("results").removeAttribute("aria-busy");
  element("start").hidden = element("more").hidden = true;
  showStatus(status);
}

function statusOf(found, body) {
  const n = found.hits.length;
  if (!n) return t(body.where || body.min_confidence ? "noMatchFiltered" : "noMatch");
  const best = Math.max(...found.hits.map((hit) => hit.confidence ?? 1));
  const doubt = about && best < about.min_confidence ? ` · ${t("doubtful")}` : "";
  return t("found", {n, ms: Math.round(found.took_ms)}) + doubt;
}

function showStatus(text) {
  element("status").textContent = text;
  clearTimeout(announceTimer);
  announceTimer = setTimeout(() => { element("announcement").textContent = text; }, ANNOUNCE_PAUSE);
}

function showProblem(error) {
  const problem = error instanceof Problem ? error : new Problem(t("refused"), {detail: String(error)});
  element("problem").replaceChildren(make("p", {}, problem.message));
  if (problem.detail) element("problem").append(make("p", {className: "detail", lang: "en"}, problem.detail));
  if (problem.retry) {
    const button = make("button", {className: "button", type: "button"}, problem.retry);
    button.onclick = () => start(problem.status === 403 ? requestToken() : null);
    element("problem").append(button);
  }
  element("problem").hidden = false;
}

function showQuery() {
  const isCombined = Boolean(query.picture) || query.like !== null;
  element("query").hidden = !isCombined;
  element("words").placeholder = t(isCombined ? "hintCombined" : "hint");
  if (!isCombined) return;
  const image = make("img", {id: "query-picture", alt: ""});
  element("query").firstElementChild.replaceWith(image);
  if (query.picture) image.src = query.picture.url;
  else showPictureOf(query.like, image);
  element("query-label").textContent = query.picture ? query.picture.name : t("moreLike", {id: query.like});
}

async function showPictureOf(id, image) {
  image.hidden = true;
  if (exceedsLimits() === "idTooLong") return;
  const found = await callJson(`/v1/documents?${new URLSearchParams({id})}`).catch(() => null);
  const path = found?.documents[0]?.picture;
  if (!path || !image.isConnected) return;
  image.hidden = false;
  showPicture(image, path);
}

// ---- history ----------------------------------------------------------------------------------

// Typing replaces the URL. When it ends (Enter, another field, an action), the entry gets its former
// URL again and the typed words become an entry of their own.

let committed = {url: "", state: null};

const stateNow = () => ({k: query.k, y: scrollY, picture: query.picture?.number ?? null});

function commit() {
  const url = toURL(), isNew = url !== committed.url
    || (committed.state?.picture ?? null) !== (query.picture?.number ?? null);
  if (isNew) {
    history.replaceState(committed.state, "", committed.url);
    history.pushState(stateNow(), "", url);
  }
  committed = {url, state: stateNow()};
}

/** Store the number of hits and the scroll position in the entry. */
function remember() {
  const state = stateNow();
  if (location.pathname + location.search === committed.url) committed.state = state;
  history.replaceState(state, "");
}

function restore() {
  readURL();
  const state = history.state ?? {};
  query.k = Number.isInteger(state.k) ? state.k : PAGE_SIZE;
  query.picture = pictures.get(state.picture) ?? null;
  committed = {url: toURL(), state: history.state};
  return search({scroll: state.y ?? 0}).then(() => {
    const isLost = Number.isInteger(state.picture) && !query.picture;
    if (isLost) showProblem(new Problem(t("pictureLost")));
  });
}

// ---- actions ----------------------------------------------------------------------------------

function searchAnew() {
  query.k = PAGE_SIZE;
  commit();
  return search();
}

function moreLike(id) {
  commit();
  Object.assign(query, {like: id, picture: null});
  element("words").value = "";
  scrollTo(0, 0);
  element("results").focus({preventScroll: true});
  searchAnew();
}

function reset() {
  Object.assign(query, {like: null, picture: null});
  searchAnew();
  element("words").focus();
}

async function searchByPicture(file) {
  try {
    const picture = await readPicture(file);
    commit();
    picture.number = Date.now();
    pictures.set(picture.number, picture);
    Object.assign(query, {picture, like: null});
    element("words").value = "";
    scrollTo(0, 0);
    searchAnew();
  } catch (error) {
    showProblem(error);
  }
}

function searchWhileTyping() {
  clearTimeout(typingTimer);
  const isFast = performance.now() - lastKey < FAST_TYPING;
  lastKey = performance.now();
  if (!element("live").checked) return;
  typingTimer = setTimeout(() => {
    query.k = PAGE_SIZE;
    history.replaceState({...stateNow(), y: 0}, "", toURL());
    search({isTyping: true});
  }, words() && (isFast || running) ? TYPING_PAUSE : 0);
}

element("form").onsubmit = (event) => {
  event.preventDefault();
  searchAnew();
};
element("words").addEventListener("input", (event) => event.isComposing || searchWhileTyping());
element("words").addEventListener("compositionend", searchWhileTyping);
element("words").addEventListener("change", () => element("live").checked && commit());
element("live").checked = live.get() !== "off";
element("live").onchange = () => live.set(element("live").checked ? "on" : "off");
element("reset").onclick = reset;
element("more").onclick = () => {
  query.k = last.found.next + 2 * PAGE_SIZE;
  remember();
  search({before: last});
};
element("clear").onclick = () => {
  clearFilters();
  searchAnew();
  element("filters-box").querySelector("summary").focus();
};
for (const input of [...document.querySelectorAll("[name=target]"), element("confidence"), element("by")])
  input.onchange = searchAnew;
element("previous").onclick = () => openNext(-1);
element("next").onclick = () => openNext(1);
for (const button of document.querySelectorAll(".close"))
  button.onclick = () => button.closest("dialog").close();
for (const dialog of [element("document"), element("keys")])
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it

acceptPictures([element("file"), element("camera")], element("drop"), searchByPicture);
onFilterChange(searchAnew);
onHitActions({moreLike, filtered: searchAnew});
handleKeys({moreLike, reset});
history.scrollRestoration = "manual";
addEventListener("popstate", restore);
let scrollTimer = 0;
addEventListener("scroll", () => {
  clearTimeout(scrollTimer);
  scrollTimer = setTimeout(() => running || remember(), 120);
}, {passive: true});

// ---- start ------------------------------------------------------------------------------------

/** Load what the page shows of the index, and search by the URL. */
async function start(before = null) {
  try {
    await before;
    about = await callJson("/v1/about");
    element("by-option").hidden = !about.ranks_words;
    if (!about.ranks_words) element("by").value = "";
    callJson("/v1/filters").then(({fields}) => fillFields(fields), showProblem);
    await restore();
  } catch (error) {
    showProblem(error);
  }
}

for (const share of [0.1, 0.5, 0.8])
  element("confidence").append(make("option", {value: String(share)}, t("atLeast", {share: percent(share)})));
translate();
if (matchMedia("(max-width: 44rem)").matches) element("filters-box").open = false;
await start();
if (!location.search) element("words").focus();
