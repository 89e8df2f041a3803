// Items as cards, and lists of results that move when they change.

import { bytes, counted, duration, element, moves, score } from './dom.js';

/** @typedef {import('./api.js').Item} Item */
/** @typedef {import('./api.js').Hit} Hit */
/** @typedef {import('./api.js').Found} Found */

/** Pictures of items that were added from this page, by id. @type {Map<string, string>} */
export const added = new Map();

/** @param {Item} item */
export const title = (item) => item.labels?.join(', ') || item.name?.split('/').pop() || `Item ${item.id}`;

/** @param {Item} item @returns {HTMLElement} */
export function picture(item) {
  const url = added.get(item.id) ?? (item.picture ? `/v1/items/${item.id}/picture` : null);
  if (!url) return element('span', 'no-picture', title(item));
  const image = element('img');
  image.alt = '';
  image.loading = 'lazy';
  image.decoding = 'async';
  // Images of few pixels look best with sharp ones.
  image.addEventListener('load', () => image.classList.toggle('tiny', image.naturalWidth <= 64));
  image.src = url;
  return image;
}

/**
 * Makes the card of an item, which searches with it.
 * @param {Item} item
 * @param {(item: Item) => void} choose
 * @param {{ score?: number, relevant?: boolean | null }} [of] a result
 */
export function card(item, choose, of = {}) {
  const button = element('button', 'card');
  button.type = 'button';
  button.append(picture(item));
  // The name of a button begins with the text that it shows.
  const shown = of.score === undefined ? title(item) : `${title(item)} ${score(of.score)}`;
  const words = [shown, `item ${item.id}`];
  if (of.score !== undefined) {
    const text = element('span', 'caption', element('span', 'label', title(item)));
    text.append(' ', element('span', 'score', score(of.score)));
    button.append(text);
  }
  if (typeof of.relevant === 'boolean') {
    button.classList.add(of.relevant ? 'relevant' : 'other');
    words.push(of.relevant ? 'same class' : 'another class');
  }
  button.setAttribute('aria-label', `${words.join(', ')}, search with it`);
  button.title = [item.name ?? `Item ${item.id}`, ...(item.labels ?? [])].join('\n');
  button.addEventListener('click', () => choose(item));
  return button;
}

/**
 * Says how many of the hits have a class of the query or, if that has none, the most frequent one.
 * @param {Hit[]} hits
 * @param {string[]} labels
 */
export function precision(hits, labels) {
  const known = hits.filter((hit) => hit.labels?.length);
  if (!known.length) return null;
  if (labels.length) {
    const right = known.filter((hit) => hit.labels?.some((label) => labels.includes(label))).length;
    return `${right} of ${hits.length} same class`;
  }
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const label of known.flatMap((hit) => hit.labels ?? [])) counts.set(label, (counts.get(label) ?? 0) + 1);
  const [[label, n]] = [...counts].sort((a, b) => b[1] - a[1]);
  return `${n} of ${hits.length} ${label}`;
}

/**
 * Writes the facts of an answer.
 * @param {HTMLElement} into
 * @param {Found} found
 * @param {string[]} labels
 * @param {number} nItems
 */
export function facts(into, found, labels, nItems) {
  const size = found.bits / 8;
  const all = [
    precision(found.hits, labels),
    `${duration(found.microseconds)} to search`,
    `${counted(size, 'byte')} per code, ${bytes(size * nItems)} for all`,
  ];
  into.replaceChildren(...all.filter((fact) => fact !== null).map((fact) => element('span', '', fact)));
}

/** A list of results whose cards move to their new places. */
export class Results {
  /**
   * @param {HTMLElement} list
   * @param {(item: Item) => void} choose
   */
  constructor(list, choose) {
    this.list = list;
    this.choose = choose;
    /** @type {Map<string, HTMLElement>} */
    this.cards = new Map();
  }

  /** @param {Hit[]} hits @param {string[]} labels */
  show(hits, labels) {
    const before = new Map([...this.cards].map(([id, item]) => [id, item.getBoundingClientRect()]));
    /** @type {Map<string, HTMLElement>} */
    const cards = new Map();
    for (const hit of hits) {
      const known = labels.length && hit.labels?.length;
      const relevant = known ? hit.labels?.some((label) => labels.includes(label)) : null;
      const item = this.cards.get(hit.id) ?? element('li');
      const old = item.querySelector('img');
      const made = card(hit, this.choose, { score: hit.score, relevant });
      // A picture that is shown already does not load again.
      const fresh = made.querySelector('img');
      if (old && fresh && old.src === fresh.src) fresh.replaceWith(old);
      const focused = item.contains(document.activeElement);
      item.replaceChildren(made);
      if (focused) made.focus({ preventScroll: true });
      cards.set(hit.id, item);
    }
    const active = document.activeElement;
    this.list.replaceChildren(...cards.values());
    if (active instanceof HTMLElement && this.list.contains(active)) active.focus({ preventScroll: true });
    this.cards = cards;
    if (moves()) this.#move(before);
  }

  /** @param {Map<string, DOMRect>} before where the cards were */
  #move(before) {
    for (const [id, item] of this.cards) {
      const [from, to] = [before.get(id), item.getBoundingClientRect()];
      if (!from) {
        item.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 180, easing: 'ease-out' });
      } else if (from.x !== to.x || from.y !== to.y) {
        const transform = `translate(${from.x - to.x}px, ${from.y - to.y}px)`;
        const easing = 'cubic-bezier(.2, .7, .2, 1)';
        item.animate([{ transform }, { transform: 'none' }], { duration: 260, easing });
      }
    }
  }
}
