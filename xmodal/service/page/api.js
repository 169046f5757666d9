// Requests to the service, with a token if it requires one.

import {element, stored} from "/page/dom.js";
import {t} from "/page/language.js";

export const token = stored("sessionStorage", "xmodal-token");

/** An error that is shown to the user; `detail` is the service's own line, in English. */
export class Problem extends Error {
  constructor(text, {detail = "", retry = "", status = 0} = {}) {
    super(text);
    Object.assign(this, {detail, retry, status});
  }
}

/** The response to a request. Raises Problem, and AbortError by `signal`. */
export async function call(path, {body, signal} = {}) {
  const sent = token.get();
  const headers = sent ? {Authorization: `Bearer ${sent}`} : {};
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(t("unreachable"), {retry: t("retry")});
  }
  if (response.ok) return response;
  if (response.status === 401) {
    if (token.get() === sent) await requestToken(sent ? t("tokenRefused") : "");
    return call(path, {body, signal});
  }
  const {detail = ""} = await response.json().catch(() => ({}));
  throw problemOf(response.status, typeof detail === "string" ? detail : "");
}

/** The JSON body of a response. A number that JavaScript cannot hold is returned as its text. */
export async function callJson(path, options) {
  const response = await call(path, options);
  try {
    return JSON.parse(await response.text(), (key, value, context) =>
      typeof value === "number" && context && !Number.isSafeInteger(value)
        && (Number.isInteger(value) || !Number.isFinite(value)) ? context.source : value);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(t("unreachable"), {retry: t("retry")});
  }
}

function problemOf(status, detail) {
  if (status === 403) return new Problem(t("forbidden"), {detail, status, retry: t("enterToken")});
  if (status === 413) return new Problem(t("tooLarge"), {detail, status});
  if (status === 429 || status === 503)
    return new Problem(t("busy"), {detail, status, retry: t("retry")});
  if (status >= 500) return new Problem(t("failed", {status: String(status)}), {detail, status, retry: t("retry")});
  return new Problem(t("refused"), {detail, status});
}

let request = null;

/** Open the dialog for a token; all requests wait for the same dialog. */
export function requestToken(problem = "") {
  request ??= new Promise((resolve, reject) => {
    const dialog = element("token-dialog");
    element("token").value = "";
    element("token-problem").textContent = problem;
    element("token-form").onsubmit = (event) => {
      event.preventDefault();
      const value = element("token").value.trim();
      if (!/^[\x21-\x7e]+$/.test(value)) {
        element("token-problem").textContent = t("tokenInvalid");
        return;
      }
      token.set(value);
      resolve();
      dialog.close();
    };
    dialog.onclose = () => {
      request = null;
      reject(new Problem(t("tokenMissing"), {retry: t("enterToken"), status: 401}));
    };
    if (!dialog.open) dialog.showModal();
  });
  return request;
}
