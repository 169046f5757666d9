// The search page. The query is kept in the URL, so that it can be bookmarked and shared. A query
// picture is too large for a URL and is kept in this tab only.

const element = (id) => document.getElementById(id);
const PAGE_SIZE = 24, MAX_K = 1000;
const SCALE_FROM_BYTES = 2_000_000, MAX_SIDE = 1600; // larger photos are scaled before upload
const noFilters = () => Object.create(null); // field names may be names of object methods
const state = {like: null, picture: null, where: noFilters(), k: PAGE_SIZE, latest: 0, about: null};

// ---- requests -------------------------------------------------------------------------------

const token = {
  get: () => sessionStorage.getItem("xmodal-token"),
  set: (value) => sessionStorage.setItem("xmodal-token", value),
};

async function call(path, body) {
  const headers = token.get() ? {Authorization: `Bearer ${token.get()}`} : {};
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body),
    });
  } catch {
    throw new Error("The service is not reachable. Is it running?");
  }
  if (response.status === 401) {
    await requestToken();
    return call(path, body);
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ? sentence(problem.detail) : `Error: status ${response.status}.`);
  }
  return response;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";

let tokenRequest = null;
function requestToken() {
  tokenRequest ??= new Promise((resolve) => {
    element("token-dialog").showModal();
    element("token-form").onsubmit = () => {
      token.set(element("token").value.trim());
      tokenRequest = null;
      resolve();
    };
  });
  return tokenRequest;
}

// ---- the query ------------------------------------------------------------------------------

function queryBody() {
  const target = document.querySelector("[name=target]:checked").value;
  const body = {target, k: state.k};
  const words = element("words").value.trim();
  if (state.like !== null) body.like = state.like;
  else if (state.picture) body.image = state.picture.data;
  if (words) body.typed = words;
  if (!words && !body.like && !body.image) return null;
  const crossModal = body.like === undefined
    && (body.image === undefined ? target === "image" && !/(^|\s)-["\p{L}\p{N}]/u.test(words)
      : target === "text" && !words);
  const confidence = element("confidence");
  confidence.disabled = !crossModal;
  if (crossModal && confidence.value) body.min_confidence = Number(confidence.value);
  if (Object.keys(state.where).length) body.where = state.where;
  if (words && element("by").value) body.by = element("by").value;
  return body;
}

function queryURL() {
  const query = new URLSearchParams();
  if (state.like !== null) query.set("like", state.like);
  if (element("words").value.trim()) query.set("q", element("words").value.trim());
  const target = document.querySelector("[name=target]:checked").value;
  if (target !== "image") query.set("find", target);
  if (element("confidence").value) query.set("sure", element("confidence").value);
  if (element("by").value) query.set("by", element("by").value);
  for (const [field, values] of Object.entries(state.where))
    for (const value of values) query.append(`where.${field}`, value);
  return query.size ? `?${query}` : "/";
}

function readURL() {
  const query = new URLSearchParams(location.search);
  element("words").value = query.get("q") ?? "";
  state.like = query.get("like");
  state.picture = null;
  state.where = noFilters();
  for (const [name, value] of query)
    if (name.startsWith("where.")) (state.where[name.slice(6)] ??= []).push(value);
  const target = document.querySelector(`[name=target][value="${CSS.escape(query.get("find"))}"]`);
  (target ?? document.querySelector("[name=target]")).checked = true;
  element("confidence").value = query.get("sure") ?? "";
  element("by").value = query.get("by") ?? "";
}

async function search({pushURL = true, more = false} = {}) {
  if (!more) state.k = PAGE_SIZE;
  showQuery();
  showFilters();
  const body = queryBody();
  if (pushURL && !more) history.pushState(null, "", queryURL());
  const number = ++state.latest;
  element("problem").hidden = true;
  if (!body) {
    showHits([]);
    showStatus(state.about ? `${count(state.about.documents, "document")} indexed` : "");
    return;
  }
  element("results").setAttribute("aria-busy", "true");
  try {
    const found = await (await call("/v1/search", body)).json();
    if (number !== state.latest) return; // a later search has started
    showHits(found.hits);
    if (found.hits.length) {
      const first = state.picture || state.like !== null ? "nearest" : "best";
      showStatus(`${count(found.hits.length, "hit")}, ${first} first, in ${Math.round(found.took_ms)} ms`);
    } else {
      const filtered = body.where || body.min_confidence;
      showStatus(`No match${filtered ? ": try fewer filters or a lower confidence" : ""}`, true);
    }
    element("more").hidden = found.hits.length < state.k || state.k >= MAX_K;
  } catch (error) {
    if (number !== state.latest) return;
    showHits([]);
    showStatus("");
    showProblem(error.message);
  } finally {
    if (number === state.latest) element("results").removeAttribute("aria-busy");
  }
}

// ---- display ----------------------------------------------------------------------------------

const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function showStatus(text, empty = false) {
  element("status").textContent = text;
  element("status").classList.toggle("empty", empty);
}

function showProblem(text) {
  element("problem").textContent = text;
  element("problem").hidden = false;
}

async function showPicture(image, path) { // an img element cannot send the token, fetch can
  try {
    if (!token.get()) image.src = path;
    else image.src = URL.createObjectURL(await (await call(path)).blob());
  } catch {
    image.alt = "cannot be shown";
  }
}

function percent(share) {
  return share > 0 && share < 0.01 ? "under 1%" : `${Math.round(100 * share)}%`;
}

function reasons(hit) { // which rankings found a hit of a fused search
  if (!hit.ranks) return "";
  const found = [];
  if (hit.ranks.codes) found.push(`picture rank ${hit.ranks.codes}`);
  if (hit.ranks.words) found.push(`words rank ${hit.ranks.words}: ${hit.matched.join(", ")}`);
  return found.join(" · ");
}

function hitElement(hit) {
  const caption = String(hit.nearest?.text ?? [hit.fields.text].flat()[0] ?? hit.id);
  const picture = hit.picture ? make("img", {alt: "", loading: "lazy"})
    : make("span", {className: "none"}, "no picture");
  if (hit.picture) showPicture(picture, hit.picture);
  const open = make("button", {className: "open", type: "button"},
    picture, make("span", {className: "caption"}, caption));
  open.onclick = () => showLarge(hit, caption);
  const distance = `distance ${hit.distance}`;
  const foot = make("div", {className: "foot"});
  if (hit.confidence !== null) {
    const confidence = `${percent(hit.confidence)} confidence`;
    foot.append(make("meter", {min: 0, max: 1, value: hit.confidence, title: confidence}),
      make("span", {}, `${confidence} · ${distance}`));
  } else foot.append(make("span", {}, distance));
  const why = reasons(hit);
  if (why) foot.append(make("span", {className: "why"}, why));
  const like = make("button", {className: "like", type: "button"}, "More like this");
  like.setAttribute("aria-label", `More like ${caption}`);
  like.onclick = () => {
    Object.assign(state, {like: hit.id, picture: null});
    element("words").value = "";
    search();
    scrollTo(0, 0);
    element("results").focus({preventScroll: true});
  };
  foot.append(like);
  return make("li", {className: "hit"}, open, foot);
}

function showHits(hits) {
  element("more").hidden = true;
  element("hits").replaceChildren(...hits.map(hitElement));
}

function showLarge(hit, caption) {
  element("large-picture").hidden = !hit.picture;
  element("large-picture").removeAttribute("src");
  element("large-picture").alt = caption;
  if (hit.picture) showPicture(element("large-picture"), `${hit.picture}&size=1024`);
  element("large-title").textContent = caption;
  const fields = {id: hit.id, distance: hit.distance, ...hit.fields};
  if (!Array.isArray(fields.text)) delete fields.text; // the title shows it
  element("large-fields").replaceChildren(...Object.entries(fields).flatMap(([name, value]) => [
    make("dt", {}, name),
    make("dd", {}, Array.isArray(value) ? value.join(name === "text" ? "\n" : ", ")
      : typeof value === "object" ? JSON.stringify(value) : String(value)),
  ]));
  element("large").showModal();
}

function showQuery() {
  const visible = state.picture || state.like !== null;
  element("query").hidden = !visible;
  if (!visible) return;
  const image = element("query-picture");
  image.hidden = false;
  if (state.picture) image.src = state.picture.url;
  else {
    image.onerror = () => { image.hidden = true; };
    showPicture(image, `/v1/picture?${new URLSearchParams({id: state.like})}`);
  }
  element("query-label").textContent = state.picture ? state.picture.name : `more like ${state.like}`;
}

function showFilters() {
  const selected = Object.values(state.where).flat().length;
  element("filters-count").textContent = selected ? `(${selected})` : "";
  element("clear").hidden = !selected;
  for (const box of element("fields").querySelectorAll("input"))
    box.checked = (state.where[box.name] ?? []).includes(box.value);
}

function fillFilters(fields) {
  element("filters").hidden = !fields.length;
  element("fields").replaceChildren(...fields.map((field) => make("fieldset", {},
    make("legend", {}, field.name),
    ...field.values.map(({value, count: n}) => {
      const box = make("input", {type: "checkbox", name: field.name, value});
      box.onchange = () => {
        const others = (state.where[field.name] ?? []).filter((other) => other !== value);
        state.where[field.name] = box.checked ? [...others, value] : others;
        if (!state.where[field.name].length) delete state.where[field.name];
        search();
      };
      return make("label", {}, box, make("span", {}, value),
        make("small", {}, n.toLocaleString("en")));
    }))));
}

// ---- query pictures ---------------------------------------------------------------------------

async function searchByPicture(file) {
  if (!file) return;
  try {
    const upload = file.size > SCALE_FROM_BYTES ? await scaled(file) : file;
    const data = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(upload);
    });
    if (state.picture) URL.revokeObjectURL(state.picture.url);
    const name = file.name || "pasted picture";
    state.picture = {data: data.slice(data.indexOf(",") + 1), url: URL.createObjectURL(file), name};
    state.like = null;
    element("words").value = "";
    search();
  } catch (error) {
    showProblem(`${file.name} cannot be read: ${error.message}`);
  }
}

async function scaled(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return file; // not decodable in this browser: the service returns the error
  const factor = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(bitmap.width * factor, bitmap.height * factor);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.convertToBlob({type: "image/jpeg", quality: 0.92});
}

// ---- events -------------------------------------------------------------------------------------

element("form").onsubmit = (event) => {
  event.preventDefault();
  if (element("query").hidden) Object.assign(state, {like: null, picture: null});
  search();
};
element("reset").onclick = () => {
  Object.assign(state, {like: null, picture: null});
  search();
  element("words").focus();
};
element("file").onchange = (event) => {
  searchByPicture(event.target.files[0]);
  event.target.value = "";
};
element("more").onclick = () => {
  state.k = Math.min(MAX_K, 2 * state.k);
  search({more: true});
};
element("clear").onclick = () => {
  state.where = noFilters();
  search();
};
for (const input of [...document.querySelectorAll("[name=target]"), element("confidence"), element("by")])
  input.onchange = () => search();
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  searchByPicture(file);
});
const hasFile = (event) => [...event.dataTransfer.types].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!hasFile(event)) return;
  event.preventDefault();
  element("drop").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  element("drop").hidden = true;
  if (!hasFile(event)) return;
  event.preventDefault();
  searchByPicture(event.dataTransfer.files[0]);
});
document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    element("words").focus();
    element("words").select();
  }
  const cards = [...document.querySelectorAll(".open")];
  const position = cards.indexOf(document.activeElement);
  if (event.key === "ArrowDown" && document.activeElement === element("words") && cards.length) {
    event.preventDefault();
    cards[0].focus();
  } else if (position >= 0 && event.key.startsWith("Arrow")) {
    const columns = getComputedStyle(element("hits")).gridTemplateColumns.split(" ").length;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
    event.preventDefault();
    if (position + step < 0) element("words").focus();
    else cards[position + step]?.focus();
  }
});
addEventListener("popstate", () => {
  readURL();
  search({pushURL: false});
});

// ---- start --------------------------------------------------------------------------------------

readURL();
if (matchMedia("(max-width: 44rem)").matches) element("filters-box").open = false;
try {
  const [about, filters] = await Promise.all(
    ["/v1/about", "/v1/filters"].map(async (path) => (await call(path)).json()));
  state.about = about;
  element("by-option").hidden = !about.ranks_words;
  fillFilters(filters.fields);
} catch (error) {
  showProblem(error.message);
}
await search({pushURL: false});
if (!location.search) element("words").focus();
