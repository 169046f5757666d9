// Elements of the page.

export const element = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A value kept in this browser (local) or this tab (session); null where storage is blocked. */
export function stored(storage, key) {
  return {
    get() {
      try {
        return window[storage].getItem(key);
      } catch {
        return this.value ?? null;
      }
    },
    set(value) {
      this.value = value;
      try {
        window[storage].setItem(key, value);
      } catch { /* the value is kept until the page is closed */ }
    },
  };
}
