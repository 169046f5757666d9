// The search page. What is looked for stands in the address, so that it can be kept and sent;
// a picture does not fit there and lives in this tab alone.

const find = (id) => document.getElementById(id);
const STEP = 24, MOST = 1000;
const SCALED_FROM = 2_000_000, LONGEST_SIDE = 1600; // photos are made smaller before they are sent
const state = {like: null, picture: null, where: {}, k: STEP, latest: 0, about: null};

// ---- asking the service ---------------------------------------------------------------------

const token = {
  get: () => sessionStorage.getItem("xmodal-token"),
  set: (value) => sessionStorage.setItem("xmodal-token", value),
};

async function call(path, body) {
  const headers = token.get() ? {Authorization: `Bearer ${token.get()}`} : {};
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body),
    });
  } catch {
    throw new Error("The service cannot be reached. Is it still running?");
  }
  if (answer.status === 401) {
    await askForToken();
    return call(path, body);
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.detail ? sentence(told.detail) : `The service answered ${answer.status}.`);
  }
  return answer;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";

let asking = null;
function askForToken() {
  asking ??= new Promise((done) => {
    find("ask-token").showModal();
    find("token-form").onsubmit = () => {
      token.set(find("token").value.trim());
      asking = null;
      done();
    };
  });
  return asking;
}

// ---- what is looked for ---------------------------------------------------------------------

function question() {
  const target = document.querySelector("[name=target]:checked").value;
  const asked = {target, k: state.k};
  const words = find("words").value.trim();
  if (state.like !== null) asked.like = state.like;
  else if (state.picture) asked.image = state.picture.data;
  else if (words) asked.text = words;
  else return null;
  const across = asked.text !== undefined ? target === "image"
    : asked.image !== undefined ? target === "text" : false;
  find("sure").disabled = !across;
  if (across && find("sure").value) asked.min_confidence = Number(find("sure").value);
  if (Object.keys(state.where).length) asked.where = state.where;
  if (asked.text && find("rank-words").checked && !asked.min_confidence) asked.words = words;
  return asked;
}

function address() {
  const told = new URLSearchParams();
  if (state.like !== null) told.set("like", state.like);
  else if (find("words").value.trim()) told.set("q", find("words").value.trim());
  const target = document.querySelector("[name=target]:checked").value;
  if (target !== "image") told.set("find", target);
  if (find("sure").value) told.set("sure", find("sure").value);
  if (find("rank-words").checked) told.set("words", "1");
  for (const [field, values] of Object.entries(state.where))
    for (const value of values) told.append(`where.${field}`, value);
  return told.size ? `?${told}` : "/";
}

function readAddress() {
  const told = new URLSearchParams(location.search);
  find("words").value = told.get("q") ?? "";
  state.like = told.get("like");
  state.picture = null;
  state.where = {};
  for (const [name, value] of told)
    if (name.startsWith("where.")) (state.where[name.slice(6)] ??= []).push(value);
  const target = document.querySelector(`[name=target][value="${CSS.escape(told.get("find"))}"]`);
  (target ?? document.querySelector("[name=target]")).checked = true;
  find("sure").value = told.get("sure") ?? "";
  find("rank-words").checked = told.has("words");
}

async function search({keep = true, more = false} = {}) {
  if (!more) state.k = STEP;
  showAsked();
  showFilters();
  const asked = question();
  if (keep && !more) history.pushState(null, "", address());
  const mine = ++state.latest;
  find("problem").hidden = true;
  if (!asked) {
    showHits([], mine);
    tell(state.about ? `${count(state.about.documents, "document")} to search in` : "");
    return;
  }
  find("results").setAttribute("aria-busy", "true");
  try {
    const found = await (await call("/v1/search", asked)).json();
    if (mine !== state.latest) return; // a later search has been started
    showHits(found.hits, mine);
    if (found.hits.length) {
      const from = state.picture || state.like !== null ? "nearest" : "best";
      tell(`${count(found.hits.length, "hit")}, ${from} first, in ${Math.round(found.took_ms)} ms`);
    } else {
      const narrowed = asked.where || asked.min_confidence;
      tell(`No match${narrowed ? ": try fewer filters, or show less sure hits" : ""}`, true);
    }
    find("more").hidden = found.hits.length < state.k || state.k >= MOST;
  } catch (error) {
    if (mine !== state.latest) return;
    showHits([], mine);
    tell("");
    find("problem").textContent = error.message;
    find("problem").hidden = false;
  } finally {
    if (mine === state.latest) find("results").removeAttribute("aria-busy");
  }
}

// ---- showing ----------------------------------------------------------------------------------

const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

function make(kind, given = {}, ...inside) {
  const made = Object.assign(document.createElement(kind), given);
  made.append(...inside);
  return made;
}

function tell(text, empty = false) {
  find("status").textContent = text;
  find("status").classList.toggle("empty", empty);
}

async function showPicture(image, path) { // with a token, a picture cannot be asked for by its tag
  try {
    if (!token.get()) image.src = path;
    else image.src = URL.createObjectURL(await (await call(path)).blob());
  } catch {
    image.alt = "cannot be shown";
  }
}

function showHits(hits, mine) {
  find("more").hidden = true;
  find("hits").replaceChildren(...hits.map((hit) => {
    const said = String(hit.fields.text ?? hit.id);
    const seen = hit.picture ? make("img", {alt: "", loading: "lazy"})
      : make("span", {className: "none"}, "no picture");
    if (hit.picture) showPicture(seen, hit.picture);
    const open = make("button", {className: "open", type: "button"},
      seen, make("span", {className: "said"}, said));
    open.onclick = () => showLarge(hit, said);
    const far = hit.distance === null ? "found by its words" : `distance ${hit.distance}`;
    const foot = make("div", {className: "foot"});
    if (hit.confidence !== null) {
      const sure = `${Math.round(100 * hit.confidence)}% sure`;
      foot.append(make("meter", {min: 0, max: 1, value: hit.confidence, title: sure}),
        make("span", {}, `${sure} · ${far}`));
    } else foot.append(make("span", {}, far));
    const like = make("button", {className: "like", type: "button"}, "More like this");
    like.setAttribute("aria-label", `More like ${said}`);
    like.onclick = () => {
      Object.assign(state, {like: hit.id, picture: null});
      search();
      scrollTo(0, 0);
      find("results").focus({preventScroll: true});
    };
    foot.append(like);
    return make("li", {className: "hit"}, open, foot);
  }));
}

function showLarge(hit, said) {
  find("large-picture").hidden = !hit.picture;
  find("large-picture").removeAttribute("src");
  find("large-picture").alt = said;
  if (hit.picture) showPicture(find("large-picture"), `${hit.picture}&size=1024`);
  find("large-title").textContent = said;
  const told = {id: hit.id, distance: hit.distance, ...hit.fields};
  delete told.text;
  find("large-fields").replaceChildren(...Object.entries(told).flatMap(([name, value]) => [
    make("dt", {}, name),
    make("dd", {}, Array.isArray(value) ? value.join(", ")
      : typeof value === "object" ? JSON.stringify(value) : String(value)),
  ]));
  find("large").showModal();
}

function showAsked() {
  const shown = state.picture || state.like !== null;
  find("asked").hidden = !shown;
  if (!shown) return;
  const image = find("asked-picture");
  image.hidden = false;
  if (state.picture) image.src = state.picture.shown;
  else {
    image.onerror = () => { image.hidden = true; };
    showPicture(image, `/v1/picture?${new URLSearchParams({id: state.like})}`);
  }
  find("asked-words").textContent = state.picture ? state.picture.name : `more like ${state.like}`;
}

function showFilters() {
  const chosen = Object.values(state.where).flat().length;
  find("filters-count").textContent = chosen ? `(${chosen})` : "";
  find("clear").hidden = !chosen;
  for (const box of find("fields").querySelectorAll("input"))
    box.checked = (state.where[box.name] ?? []).includes(box.value);
}

function fillFilters(fields) {
  find("filters").hidden = !fields.length;
  find("fields").replaceChildren(...fields.map((field) => make("fieldset", {},
    make("legend", {}, field.name),
    ...field.values.map(({value, count: n}) => {
      const box = make("input", {type: "checkbox", name: field.name, value});
      box.onchange = () => {
        const others = (state.where[field.name] ?? []).filter((one) => one !== value);
        state.where[field.name] = box.checked ? [...others, value] : others;
        if (!state.where[field.name].length) delete state.where[field.name];
        search();
      };
      return make("label", {}, box, make("span", {}, value),
        make("small", {}, n.toLocaleString("en")));
    }))));
}

// ---- pictures that come in --------------------------------------------------------------------

async function take(file) {
  if (!file) return;
  try {
    const small = file.size > SCALED_FROM ? await scaled(file) : file;
    const data = await new Promise((done, failed) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.onerror = () => failed(reader.error);
      reader.readAsDataURL(small);
    });
    if (state.picture) URL.revokeObjectURL(state.picture.shown);
    const name = file.name || "pasted picture";
    state.picture = {data: data.slice(data.indexOf(",") + 1), shown: URL.createObjectURL(file), name};
    state.like = null;
    find("words").value = "";
    search();
  } catch (error) {
    find("problem").textContent = `${file.name} cannot be read: ${error.message}`;
    find("problem").hidden = false;
  }
}

async function scaled(file) {
  const whole = await createImageBitmap(file).catch(() => null);
  if (!whole) return file; // no picture to this browser: the service says what is wrong with it
  const share = Math.min(1, LONGEST_SIDE / Math.max(whole.width, whole.height));
  const canvas = new OffscreenCanvas(whole.width * share, whole.height * share);
  canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
  whole.close();
  return canvas.convertToBlob({type: "image/jpeg", quality: 0.92});
}

// ---- what a person does -------------------------------------------------------------------------

find("form").onsubmit = (event) => {
  event.preventDefault();
  if (find("asked").hidden) Object.assign(state, {like: null, picture: null});
  search();
};
find("forget").onclick = () => {
  Object.assign(state, {like: null, picture: null});
  search();
  find("words").focus();
};
find("file").onchange = (event) => {
  take(event.target.files[0]);
  event.target.value = "";
};
find("more").onclick = () => {
  state.k = Math.min(MOST, 2 * state.k);
  search({more: true});
};
find("clear").onclick = () => {
  state.where = {};
  search();
};
for (const one of [...document.querySelectorAll("[name=target]"), find("sure"), find("rank-words")])
  one.onchange = () => search();
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  take(file);
});
const carriesFile = (event) => [...event.dataTransfer.types].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  find("drop").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  find("drop").hidden = true;
  if (!carriesFile(event)) return;
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    find("words").focus();
    find("words").select();
  }
  const cards = [...document.querySelectorAll(".open")];
  const here = cards.indexOf(document.activeElement);
  if (event.key === "ArrowDown" && document.activeElement === find("words") && cards.length) {
    event.preventDefault();
    cards[0].focus();
  } else if (here >= 0 && event.key.startsWith("Arrow")) {
    const columns = getComputedStyle(find("hits")).gridTemplateColumns.split(" ").length;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[event.key];
    event.preventDefault();
    if (here + step < 0) find("words").focus();
    else cards[here + step]?.focus();
  }
});
addEventListener("popstate", () => {
  readAddress();
  search({keep: false});
});

// ---- the beginning ------------------------------------------------------------------------------

readAddress();
if (matchMedia("(max-width: 44rem)").matches) find("filters-box").open = false;
try {
  const [about, filters] = await Promise.all(
    ["/v1/about", "/v1/filters"].map(async (path) => (await call(path)).json()));
  state.about = about;
  find("by-words").hidden = !about.ranks_words;
  fillFilters(filters.fields);
} catch (error) {
  find("problem").textContent = error.message;
  find("problem").hidden = false;
}
await search({keep: false});
if (!location.search) find("words").focus();
