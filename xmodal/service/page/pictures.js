// Pictures: of documents, and of queries (chosen, photographed, dropped or pasted).

import {call, Problem, token} from "/page/api.js";
import {make} from "/page/dom.js";
import {t} from "/page/language.js";

const MAX_BYTES = 2_000_000, MAX_SIDE = 1600; // larger photos are scaled before upload

/** Show a document's picture when it comes near the visible part of the page. An img element cannot
 * send the token, fetch can. */
export function showPicture(image, path) {
  image.onerror = () => image.replaceWith(
    make("span", {className: "none"}, t("pictureFailed")));
  if (!token.get()) image.src = path;
  else {
    image.dataset.path = path;
    visible.observe(image);
  }
}

const visible = new IntersectionObserver((entries) => {
  for (const {target: image, isIntersecting} of entries) {
    if (!isIntersecting) continue;
    visible.unobserve(image);
    fetchPicture(image, image.dataset.path);
  }
}, {rootMargin: "400px"});

async function fetchPicture(image, path) {
  try {
    const url = URL.createObjectURL(await (await call(path)).blob());
    image.onload = () => URL.revokeObjectURL(url);
    image.src = url;
  } catch {
    image.onerror?.();
  }
}

/** The query picture of a file: {data: base64, url, name}. Raises Problem. */
export async function readPicture(file) {
  const name = file.name || t("pasted");
  if (file.type && !file.type.startsWith("image/")) throw new Problem(t("notPicture", {name}));
  try {
    const data = await base64(await scaled(file));
    return {data, url: URL.createObjectURL(file), name};
  } catch (error) {
    throw new Problem(t("unreadable", {name}), {detail: error.message});
  }
}

const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

async function scaled(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return file; // not decodable in this browser: the service returns the error
  const factor = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  if (factor === 1 && file.size <= MAX_BYTES) return file;
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * factor)));
  const canvas = new OffscreenCanvas(width, height), drawing = canvas.getContext("2d");
  drawing.fillStyle = "white"; // behind transparent pixels, which JPEG does not have
  drawing.fillRect(0, 0, width, height);
  drawing.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return canvas.convertToBlob({type: "image/jpeg", quality: 0.92});
}

/** Call `search` with each picture that is chosen, dropped or pasted. */
export function acceptPictures(inputs, overlay, search) {
  for (const input of inputs)
    input.onchange = () => {
      if (input.files.length) search(input.files[0]);
      input.value = "";
    };
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    search(file);
  });
  const hasFile = (event) => [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    overlay.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) overlay.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    overlay.hidden = true;
    if (!hasFile(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) search(event.dataTransfer.files[0]);
  });
}
