// The page: what happens when the query, the length or the gallery changes.

import * as api from './api.js';
import { announce, byId, bytes, counted, element, showError, whole } from './dom.js';
import { markLength, showGrowth } from './growth.js';
import { GalleryMap } from './map.js';
import { QueryPanel } from './query.js';
import { Results, card, facts } from './results.js';

/** @typedef {import('./query.js').Query} Query */
/** @typedef {import('./api.js').SearchQuery} SearchQuery */

/** Results of the list under the slider, and of each list below it. */
const [SHOWN, SIDE] = [12, 9];
/** Lengths side by side. */
const LISTS = 4;
/** Rings on the map. */
const RINGS = 8;

let info = await api.info().catch((error) => {
  showError(error);
  throw error;
});
const slider = byId('bits', HTMLInputElement);
const one = new Results(byId('one', HTMLElement), choose);
const map = info.map ? new GalleryMap(choose) : null;
const panel = new QueryPanel(info, show, refresh);
const lengths = info.bits.slice(0, LISTS);
const columns = lengths.map(column);
let [single, every] = [new AbortController(), new AbortController()];

/** @param {import('./api.js').Item} item */
function choose(item) {
  panel.item(item).catch(showError);
}

/** The bits at which the slider stands. */
const bits = () => info.bits[Number(slider.value)];

/** Makes the list of one length. @param {number} bits */
function column(bits) {
  const [heading, text] = [element('h3', '', `${bits} bits`), element('p', 'facts')];
  const list = element('ol', 'hits three');
  list.setAttribute('aria-label', `Results at ${bits} bits`);
  const column = element('div', 'column', heading, text, list);
  byId('all', HTMLElement).append(column);
  return { bits, column, text, results: new Results(list, choose) };
}

/** What a query searches for: an item of the gallery does not find itself. @param {Query} query @returns {SearchQuery} */
function wanted(query) {
  const { features } = query.coded;
  return query.item && !query.file ? { features, deny: [query.item.id] } : { features };
}

/** @param {Query} query */
function show(query) {
  showGrowth(query.coded, query.item !== null, info.items);
  searchOne(query).catch(showError);
  searchEvery(query).catch(showError);
}

/** @param {Query} query */
async function searchOne(query) {
  single.abort();
  const { signal } = (single = new AbortController());
  one.list.ariaBusy = 'true';
  markLength(bits());
  try {
    const found = await api.search(wanted(query), bits(), SHOWN, signal);
    one.show(found.hits, query.labels);
    facts(byId('one-facts', HTMLElement), found, query.labels, info.items);
    if (query.file && query.item && query.inGallery) {
      // By the inner product, longer vectors can be better than the code of the image itself.
      const at = await api.place(wanted(query), query.item.id, found.bits, info.max_k, signal);
      const text = at ? `your item is at place ${whole(at)}` : `your item is behind place ${whole(info.max_k)}`;
      byId('one-facts', HTMLElement).append(element('span', 'mine', text));
    }
    announce(`${counted(found.hits.length, 'result')} at ${found.bits} bits in ${found.microseconds} microseconds`);
  } finally {
    if (signal === single.signal) one.list.ariaBusy = 'false';
  }
}

/** Searches at all lengths side by side, and on the map. @param {Query} query */
async function searchEvery(query) {
  every.abort();
  const { signal } = (every = new AbortController());
  const lists = byId('all', HTMLElement);
  lists.ariaBusy = 'true';
  const longest = lengths[lengths.length - 1];
  try {
    await api.searchAll(wanted(query), longest, SIDE, signal, (found) => {
      const column = columns.find((column) => column.bits === found.bits);
      if (!column) return;
      column.results.show(found.hits, query.labels);
      facts(column.text, found, query.labels, info.items);
    });
  } finally {
    if (signal === every.signal) lists.ariaBusy = 'false';
  }
  if (map?.points.length) {
    const allow = map.points.map((point) => point.id);
    const longest = info.bits[info.bits.length - 1];
    const near = await api.search({ ...wanted(query), allow }, longest, RINGS, signal);
    map.mark(near.hits.map((hit) => hit.id));
  }
}

/** Reads the gallery again after a change. @param {Query} query */
async function refresh(query) {
  try {
    info = await api.info();
    describe();
    pick().catch(showError);
    map?.load().catch(showError);
    const { lengths } = await api.code({ code: query.coded.code });
    query.coded.lengths.forEach((length, i) => (length.equal = lengths[i].equal));
  } finally {
    // Results are of the gallery as it is now, even if its counts cannot be read.
    if (query === panel.query) show(query);
  }
}

function describe() {
  const metric = info.metric === 'ip' ? 'inner product' : 'Euclidean distance';
  byId('gallery-facts', HTMLElement).textContent =
    `${counted(info.items, 'item')}, ${whole(info.dim)} dimensions, ${metric}, ${bytes(info.bytes)} in memory`;
}

let seed = 0;

async function pick() {
  const items = await api.items(24, seed);
  byId('picker', HTMLElement).replaceChildren(...items.map((item) => element('li', '', card(item, choose))));
  return items;
}

function describeLength() {
  const text = `${bits()} bits`;
  byId('bits-text', HTMLOutputElement).textContent = text;
  slider.setAttribute('aria-valuetext', text);
}

describe();
slider.max = String(info.bits.length - 1);
slider.value = String(Math.min(1, info.bits.length - 1));
slider.disabled = info.bits.length < 2;
describeLength();
slider.addEventListener('input', () => {
  describeLength();
  if (panel.query) searchOne(panel.query).catch(showError);
});
byId('others', HTMLButtonElement).addEventListener('click', () => {
  seed = 1 + Math.floor(Math.random() * 1e6);
  pick().catch(showError);
});
pick()
  .then((items) => items.length && !panel.latest && choose(items[items.length - 1]))
  .catch(showError);
map
  ?.load()
  .then(() => panel.query && searchEvery(panel.query))
  .catch(showError);
