// The query: an image of the user's or an item of the gallery, and whether the gallery has it.

import * as api from './api.js';
import { byId, clearError, element, showError, whole } from './dom.js';
import { added, picture, title } from './results.js';

/** @typedef {import('./api.js').Item} Item */
/** @typedef {import('./api.js').Coded} Coded */
/** @typedef {import('./api.js').Info} Info */

/**
 * @typedef {{ title: string, note: string, labels: string[], coded: Coded, item: Item | null,
 *   file: File | null, inGallery: boolean }} Query
 * An image has no item until it is added.
 */

/** The largest side of an image that is too large to be sent as it is. */
const SIDE = 1024;

export class QueryPanel {
  /**
   * @param {Info} info
   * @param {(query: Query) => void} search called with a new query
   * @param {(query: Query) => Promise<void>} changed called after the gallery has changed
   */
  constructor(info, search, changed) {
    this.info = info;
    this.search = search;
    this.changed = changed;
    /** @type {Query | null} */
    this.query = null;
    this.latest = 0;
    this.button = byId('change', HTMLButtonElement);
    this.button.addEventListener('click', () => this.#change().catch(showError));
    byId('token-field', HTMLElement).hidden = !(info.live && info.token);
    if (info.images) this.#takeFiles();
    else {
      byId('choose', HTMLElement).hidden = true;
      byId('drop-hint', HTMLElement).textContent =
        'Click an item to search with it. A server that was started with --model takes images too.';
    }
  }

  #takeFiles() {
    const input = byId('file', HTMLInputElement);
    const take = (/** @type {File | null | undefined} */ file) => {
      if (file) this.image(file).catch(showError);
    };
    input.addEventListener('change', () => {
      take(input.files?.[0]);
      // The same file may be chosen again.
      input.value = '';
    });
    document.addEventListener('paste', (event) => take(event.clipboardData?.files[0]));
    document.addEventListener('dragover', (event) => {
      event.preventDefault();
      document.body.classList.add('dragging');
    });
    document.addEventListener('dragleave', (event) => {
      if (!event.relatedTarget) document.body.classList.remove('dragging');
    });
    document.addEventListener('drop', (event) => {
      event.preventDefault();
      document.body.classList.remove('dragging');
      take(event.dataTransfer?.files[0]);
    });
  }

  /** Searches with an image. @param {File} file */
  async image(file) {
    clearError();
    const turn = ++this.latest;
    const { sent, note } = await fitting(file, this.info.max_body);
    const coded = await api.code(sent);
    if (turn !== this.latest) return;
    this.#set({ title: file.name || 'Image', note, labels: [], coded, item: null, file: sent, inGallery: false });
    this.#show(preview(sent));
  }

  /** Searches with an item. @param {Item} item */
  async item(item) {
    clearError();
    const turn = ++this.latest;
    const coded = await api.code({ id: item.id });
    if (turn !== this.latest) return;
    const note = item.name ? `Item ${item.id}, ${item.name}` : `Item ${item.id}`;
    const labels = item.labels ?? [];
    this.#set({ title: title(item), note, labels, coded, item, file: null, inGallery: true });
    this.#show(picture(item));
  }

  /** @param {Query} query */
  #set(query) {
    this.query = query;
    this.search(query);
  }

  /** @param {HTMLElement} [shown] a new picture */
  #show(shown) {
    const query = this.query;
    if (!query) return;
    if (shown) byId('query-picture', HTMLElement).replaceChildren(shown);
    byId('query-name', HTMLElement).textContent = query.title;
    byId('query-note', HTMLElement).textContent = query.note;
    this.button.hidden = !this.info.live;
    this.button.textContent = query.inGallery ? 'Delete item' : query.item ? 'Put back' : 'Add to gallery';
  }

  /** Adds the query to the gallery or deletes it from there. */
  async #change() {
    const query = this.query;
    if (!query) return;
    clearError();
    const token = byId('token', HTMLInputElement).value;
    this.button.disabled = true;
    try {
      if (query.inGallery && query.item) {
        await api.remove(query.item.id, token);
        query.inGallery = false;
        query.note = 'Deleted';
      } else if (query.item) {
        const { id, name } = query.item;
        await api.addCode({ id, name, code: query.coded.code }, token);
        query.inGallery = true;
        query.note = `Item ${id}, put back`;
      } else if (query.file) {
        const { id, name } = await api.addImage(query.file, query.title, token);
        query.item = { id, name };
        query.inGallery = true;
        query.note = name ? `Item ${id}, added` : `Item ${id}, added without its name, which another item has`;
        added.set(id, URL.createObjectURL(query.file));
      }
    } finally {
      this.button.disabled = false;
    }
    if (query === this.query) this.#show();
    await this.changed(query);
  }
}

/** @param {Blob} file */
function preview(file) {
  const image = element('img');
  image.alt = 'Your image';
  image.addEventListener('load', () => image.classList.toggle('tiny', image.naturalWidth <= 64));
  image.src = URL.createObjectURL(file);
  return image;
}

/**
 * Returns an image that the server takes, and what to say of it: the file itself, or if it is too
 * large, one of at most SIDE pixels per side, compressed again.
 * @param {File} file
 * @param {number} maxBytes
 */
async function fitting(file, maxBytes) {
  const unchanged = { sent: file, note: 'Your image' };
  if (file.size <= maxBytes) return unchanged;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return unchanged;
  const side = Math.max(SIDE, bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round((n * SIDE) / side)));
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d');
  if (!context) return unchanged;
  // JPEG has no transparency. What shows through is the page.
  context.fillStyle = 'white';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  /** @type {Blob | null} */
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.92));
  if (!blob) return unchanged;
  const how = side > SIDE ? `shrunk to ${whole(SIDE)} pixels` : 'compressed';
  return { sent: new File([blob], file.name, { type: 'image/jpeg' }), note: `Your image, ${how}` };
}
