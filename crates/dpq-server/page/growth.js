// How the code of the query grows: a row per length.

import { byId, counted, element, moves, whole } from './dom.js';

/** @typedef {import('./api.js').Coded} Coded */

/** The maximum number of bytes that are drawn as boxes. */
const BOXES = 8;

/**
 * @param {Coded} coded
 * @param {boolean} isItem whether the query is what the code of an item stands for
 * @param {number} nItems
 */
export function showGrowth(coded, isItem, nItems) {
  const table = byId('growth', HTMLTableElement);
  const head = table.createTHead();
  head.replaceChildren(element('tr', '', heading('Code'), heading('Error left'), heading('Items left')));
  const most = Math.max(...coded.lengths.map(({ distortion }) => distortion)) || 1;
  const rows = coded.lengths.map((length, i) => {
    const n = length.bits / 8;
    const row = element('tr', '', codeCell(coded.code, n), errorCell(length.distortion, most), element('td', 'count', whole(length.equal)));
    row.dataset.bits = String(length.bits);
    if (moves() && i < 16) {
      const timing = { duration: 240, delay: 70 * i, fill: /** @type {const} */ ('backwards'), easing: 'ease-out' };
      row.animate([{ opacity: 0, transform: 'translateY(-6px)' }, { opacity: 1, transform: 'none' }], timing);
    }
    return row;
  });
  const body = table.tBodies[0] ?? table.createTBody();
  body.replaceChildren(...rows);
  const what = isItem ? 'of what its longest code stands for' : 'of its feature vector';
  byId('growth-note', HTMLElement).textContent =
    `Each byte names a codeword that is added. The error is the share of the squared length ${what}. ` +
    `Items left are those of ${counted(nItems, 'item')} with the same bytes so far.`;
}

/** @param {number} bits */
export function markLength(bits) {
  for (const row of byId('growth', HTMLTableElement).tBodies[0]?.rows ?? []) {
    if (row.dataset.bits === String(bits)) row.setAttribute('aria-current', 'true');
    else row.removeAttribute('aria-current');
  }
}

/** @param {string} text */
function heading(text) {
  const cell = element('th', '', text);
  cell.scope = 'col';
  return cell;
}

/** @param {number[]} code @param {number} n the bytes so far */
function codeCell(code, n) {
  const cell = element('th', 'code');
  cell.scope = 'row';
  const first = code.length > BOXES ? n - 1 : 0;
  if (first > 0) cell.append(element('span', 'soft', `${n - 1} +`));
  for (const byte of code.slice(first, n)) cell.append(element('span', 'byte', String(byte)));
  cell.append(element('span', 'for-readers', `, ${8 * n} bits`));
  return cell;
}

/** @param {number} distortion @param {number} most that of the shortest code, which has a whole bar */
function errorCell(distortion, most) {
  const bar = element('span', 'bar');
  bar.style.setProperty('--share', String(Math.max(0, distortion / most)));
  const text = distortion < 0.0005 ? '0 %' : `${(100 * distortion).toFixed(distortion < 0.1 ? 1 : 0)} %`;
  return element('td', 'error-left', bar, element('span', '', text));
}
