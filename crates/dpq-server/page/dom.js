// Elements and numbers. Data reaches the page as text only, never as markup.

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

/**
 * Makes an element with a class and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, className = '', ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const WHOLE = new Intl.NumberFormat('en');

/** @param {number} n */
export const whole = (n) => WHOLE.format(n);

/** @param {number} n @param {string} one */
export const counted = (n, one) => `${whole(n)} ${one}${n === 1 ? '' : 's'}`;

/** @param {number} n */
export function bytes(n) {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) [n, unit] = [n / 1000, unit + 1];
  return `${unit && n < 100 ? n.toFixed(1) : whole(Math.round(n))} ${n === 1 && !unit ? 'byte' : units[unit]}`;
}

/** @param {number} µs */
export const duration = (µs) => (µs < 1000 ? `${µs} µs` : `${(µs / 1000).toFixed(µs < 10_000 ? 1 : 0)} ms`);

/** @param {number} x */
export const score = (x) => x.toPrecision(5);

/** Whether things may move. */
export const moves = () => !matchMedia('(prefers-reduced-motion: reduce)').matches;

/** @type {number | undefined} */
let waiting;

/**
 * Tells people who do not see the page what happened, once it has stopped changing.
 * @param {string} text
 */
export function announce(text) {
  clearTimeout(waiting);
  waiting = setTimeout(() => (byId('status', HTMLElement).textContent = text), 400);
}

/** @param {unknown} error */
export function showError(error) {
  if (error instanceof DOMException && error.name === 'AbortError') return;
  const box = byId('error', HTMLElement);
  box.textContent = error instanceof Error ? sentence(error.message) : String(error);
  box.hidden = false;
}

export function clearError() {
  byId('error', HTMLElement).hidden = true;
}

/** @param {string} text */
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
